/** One product: usage and burn-down of each bucket, throughput, record. */
import { address, route } from "./router.js";
import { Burndown } from "./burndown.js";
import { html } from "./html.js";
import { RecordTable } from "./record.js";
import { useStore } from "./store.js";
import { useDrawn } from "./terminal.js";
import { SpanButtons, TrendChart } from "./trends.js";
import { PoolTable } from "./pool.js";
import { Message, Page, Problem, State, useResource } from "./ui.js";

export function ProductPage({ id }) {
  const { query } = useStore(route);
  const concerns = (name, message) =>
    [message?.id, message?.subject, message?.product_id, message?.body?.product_id].includes(id);
  const { data, error, ready } = useResource(`products/${encodeURIComponent(id)}`, concerns);
  const buckets = data?.buckets ?? [];
  const reports = data?.samples?.throughput ? ["throughput"] : [];
  const [drawn, onReady] = useDrawn([...reports, ...buckets.map((bucket) => bucket.bucket_id)]);
  if (error && !data)
    return html`<${Page} name="product" title=${id} ready><${Problem} error=${error} /><//>`;
  if (!data) return html`<${Page} name="product" title=${id} ready=${false} />`;
  const { record, terminal } = data;
  const limits = {
    "plan, down": 1e6 * (record.max_bandwidth_downlink_mbps ?? 0),
    "plan, up": -1e6 * (record.max_bandwidth_uplink_mbps ?? 0),
  };
  return html`<${Page} name="product" title=${record.name ?? id} ready=${ready && drawn} heading=${html`<${State}
      state=${record.status} />`}>
    <p class="facts"><span>Product <code>${id}</code></span>
      ${terminal && html`<span>terminal <a
          href=${address("terminal", terminal.imei)}><bdi>${terminal.name ?? terminal.imei}</bdi></a></span>`}
      ${record.site_id && html`<span>site <a
          href=${address("organizations", "", { kind: "site", id: record.site_id })}><bdi>${record.site_id}</bdi></a></span>`}
      ${record.end_customer_name && html`<span>customer <bdi>${record.end_customer_name}</bdi></span>`}
    </p>
    ${buckets.length === 0 && html`<${Message}>No usage yet: it comes with the call usage_consumption.<//>`}
    ${buckets.map(
      (bucket) => html`<${Burndown} key=${bucket.bucket_id} bucket=${bucket} product=${record} onReady=${onReady}
      forecast=${data.forecasts?.find((forecast) => forecast.bucket_id === bucket.bucket_id)} />`,
    )}
    ${data.pools?.map((pool) => html`<${PoolTable} key=${pool.shared_allowance_id} pool=${pool} own=${id} />`)}
    <${SpanButtons} query=${query} />
    ${reports.length === 0 && html`<${Message}>No throughput yet: it comes with the call product_throughput.<//>`}
    ${reports.map((report) => html`<${TrendChart} key=${report} entity="product" id=${id} report=${report}
        query=${query} onReady=${onReady} limits=${limits} />`)}
    <section class="card"><h2>Record</h2><${RecordTable} record=${record} /></section>
  <//>`;
}
