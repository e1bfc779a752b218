/** One terminal: trends, record, components, products, events. */
import { now } from "./api.js";
import { describeBand } from "./burndown.js";
import { calls, isUsageStale } from "./calls.js";
import { EventList } from "./eventlist.js";
import { day, duration, fullTime, iso } from "./format.js";
import { html, useEffect, useState } from "./html.js";
import { MapThumb } from "./mapthumb.js";
import { RecordTable } from "./record.js";
import { address, route } from "./router.js";
import { useStore } from "./store.js";
import { SpanButtons, TrendChart } from "./trends.js";
import { Ago, Message, Page, Problem, State, UsageBar, useNow, useResource } from "./ui.js";

const REPORTS = ["signal_quality", "link_availability", "traffic", "link_metrics", "resource_state"];

export function TerminalPage({ id }) {
  const { query } = useStore(route);
  const path = `terminals/${encodeURIComponent(id)}`;
  const { data, error, ready } = useResource(
    path,
    (name, message) => message?.id === id || message?.subject === id || concernsProduct(data, message),
  );
  const reports = REPORTS.filter((report) => data?.samples?.[report]);
  const [drawn, onReady] = useDrawn([...reports, "events"]);
  if (error && !data)
    return html`<${Page} name="terminal" title=${id} ready><${Problem} error=${error} /><//>`;
  if (!data) return html`<${Page} name="terminal" title=${id} ready=${false} />`;
  const { record } = data;
  const relations = data.relations ?? {};
  return html`<${Page} name="terminal" title=${record.name ?? id} ready=${ready && drawn} heading=${html`<${State}
      state=${record.state} />`}>
    <div class="subtitle">
      <div><p class="facts"><span>IMEI <code>${id}</code></span><span
          title="the newest of its state and samples, also those that say that it is offline">last data <${Ago}
          time=${newest(data)} /></span><${Away} id=${id} record=${record} /></p>
        <${Chain} relations=${relations} /></div>
      <${MapThumb} latitude=${record.latitude} longitude=${record.longitude} imei=${id} />
    </div>
    <${Products} data=${data} />
    <${SpanButtons} query=${query} />
    ${reports.length === 0 && html`<${Message}>No samples yet: none of this terminal's reports came since the start; the Polling Manager says when they are polled.<//>`}
    <div class="charts">${reports.map((report) => html`<${TrendChart} key=${report} entity="terminal" id=${id}
        report=${report} query=${query} onReady=${onReady} />`)}</div>
    <div class="columns">
      <section class="card"><h2>Record</h2><${RecordTable} record=${record} /></section>
      <${Components} components=${data.components} />
      <section class="card"><h2>Events</h2><${EventList} filter=${{ entity: "terminal", id }} limit="50"
          onReady=${(isReady) => onReady("events", isReady)} /></section>
    </div>
  <//>`;
}

/** Whether all charts of a page are drawn, and the function by which each says that it is. */
export function useDrawn(reports) {
  const [ready, setReady] = useState({});
  const onReady = (report, isReady) => {
    if (ready[report] !== isReady)
      queueMicrotask(() => setReady((old) => (old[report] === isReady ? old : { ...old, [report]: isReady })));
  };
  return [reports.every((report) => ready[report]), onReady];
}

function concernsProduct(data, message) {
  const ids = data?.relations?.product_ids ?? [];
  return ids.includes(message?.id) || ids.includes(message?.body?.product_id) || ids.includes(message?.product_id);
}

function newest({ record, samples }) {
  const times = Object.values(samples ?? {}).map((sample) => sample.ts);
  return Math.max(Date.parse(record.last_seen) || 0, ...times) || null;
}

/** Since when a terminal that is not online is in its state, by its events, and when the API saw it last. */
function Away({ id, record }) {
  const isAway = Boolean(record.state) && record.state !== "online";
  const path = `events?entity=terminal&kind=changed&limit=100&id=${encodeURIComponent(id)}`;
  const { data } = useResource(isAway ? path : null, (name, event) => name === "event" && event.subject === id);
  if (!isAway) return null;
  const change = data?.events.find((event) => event.data.changed?.state?.to === record.state);
  return html`${change && html`<span>${record.state} for <${For} time=${change.ts} /></span>`}
    ${record.last_seen && html`<span title="by its record">last seen <${Ago} time=${record.last_seen} /></span>`}`;
}

function For({ time }) {
  const moment = useNow();
  return html`<time datetime=${iso(time)} title=${`since ${fullTime(time)}`}>${duration(Math.max(0, moment - time))}</time>`;
}

/** Site, customer and partner, as far as they are known. */
function Chain({ relations }) {
  const links = [
    ["site", relations.site],
    ["organization", relations.end_customer],
    ["organization", relations.distribution_partner],
  ].filter(([, party]) => party);
  if (!links.length) return null;
  return html`<p class="chain">${links.map(
    ([kind, party], i) => html`${i > 0 && html`<span aria-hidden="true"> ▸ </span>`}<a
    href=${address("organizations", "", { kind, id: party.id })}><bdi>${party.name ?? party.id}</bdi></a>`,
  )}</p>`;
}

/** Above the charts, because what a terminal may still use is asked for as often as how it is connected. */
function Products({ data }) {
  const { products = [], buckets = [], forecasts = [] } = data;
  useStore(calls);
  return html`<section class="card"><h2>Products</h2>
    ${products.length === 0 && html`<p class="muted">No product names this terminal.</p>`}
    ${products.map(
      (product) => html`<div class="product" key=${product.product_id}>
      <a href=${address("product", product.product_id)}><bdi>${product.name ?? product.product_id}</bdi></a>
      <span class="muted small"> ${product.product_id} · ${product.status ?? "–"}</span>
      ${buckets
        .filter((bucket) => bucket.product_id === product.product_id)
        .map(
          (bucket) => html`<div class="bucket" key=${bucket.bucket_id}>
        <span><bdi>${bucket.bucket_name ?? bucket.bucket_id}</bdi></span><${UsageBar} percent=${percentOf(bucket)}
            blocks=${bucket.overage_blocks} unlimited=${bucket.remaining_unlimited} stale=${isUsageStale()} />
          <${RunsOut} forecast=${forecasts.find((forecast) => forecast.bucket_id === bucket.bucket_id)} /></div>`,
        )}
    </div>`,
    )}
  </section>`;
}

/** When the allowance is used up, in a few words; where that is not to be expected nothing. */
function RunsOut({ forecast }) {
  const time = Date.parse(forecast?.exhausted_p50);
  if (Number.isNaN(time)) return null;
  if (time <= now()) return html`<span class="bad" title=${fullTime(time)}>exhausted since ${day(time)}</span>`;
  return html`<span class="muted" title=${`most likely ${fullTime(time)}`}>exhausts ${day(time)}${describeBand(forecast)}</span>`;
}

export const percentOf = (bucket) =>
  bucket.entitlement_gb && bucket.used_gb !== undefined && !bucket.remaining_unlimited
    ? (100 * bucket.used_gb) / bucket.entitlement_gb
    : null;

function Components({ components }) {
  const names = Object.keys(components ?? {}).sort();
  return html`<section class="card"><h2>Components</h2>
    ${
      names.length === 0
        ? html`<p class="muted">No components yet: they come with the call user_terminal_components.</p>`
        : html`<table class="record"><tbody>${names.map((name) => html`<tr key=${name}><th
            scope="row">${name}</th><td><bdi>${components[name]}</bdi></td></tr>`)}</tbody></table>`
    }
  </section>`;
}
