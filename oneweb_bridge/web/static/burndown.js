/** How the allowance of a bucket is used up: what was used, an even pace, and the band of the forecast. */
import { API, now, withQuery } from "./api.js";
import { calls, isUsageStale } from "./calls.js";
import { Chart, color, lineColor, look } from "./chart.js";
import { DAY, day, dayAndTime, fullTime, iso, number, plural, toMs, zone } from "./format.js";
import { html, useEffect, useMemo, useState } from "./html.js";
import { useStore } from "./store.js";
import { isTold, UsageBar, useResource } from "./ui.js";

const HISTORY_DAYS = 95;
const EARLIER_CYCLES = 3;

export function Burndown({ bucket, product, forecast, onReady }) {
    const looks = [useStore(zone), useStore(look)];
    useStore(calls);
    const [open, setOpen] = useState(false);
    const id = bucket.bucket_id;
    const path = withQuery("series", {
        entity: "usage",
        id,
        report: "usage",
        names: "used_gb",
        since: `${HISTORY_DAYS}d`,
        points: 10000,
    });
    const { data, error, ready } = useResource(
        path,
        (name, message) => name === "state" && message.what === "usage" && message.body?.bucket_id === id,
    );
    useEffect(() => onReady(id, ready), [id, ready]);
    const cycle = useMemo(() => readCycle(bucket, forecast, data), [bucket, forecast, data]);
    const { columns, lines } = useMemo(() => prepare(cycle, forecast), [cycle, forecast, ...looks]);
    const range = [cycle.begin / 1000, cycle.end / 1000];
    const unlimited = bucket.remaining_unlimited || forecast?.status === "unlimited";
    return html`<section class="card chart" data-testid="chart" data-report="usage" data-bucket=${id}>
    <header><h2><bdi>${bucket.bucket_name ?? id}</bdi></h2><span class="spacer"></span>
      <a class="button" href=${API + withQuery("series.csv", { entity: "usage", id, report: "usage", since: iso(cycle.begin) })}
          download=${`${id}-usage.csv`}>CSV</a>
      <button aria-expanded=${open} onClick=${() => setOpen(!open)}>Table</button></header>
    <p class="headline"><${UsageBar} percent=${cycle.limit ? (100 * bucket.used_gb) / cycle.limit : null}
        blocks=${bucket.overage_blocks} unlimited=${unlimited} stale=${isUsageStale()} />
      <span>${describeUsage(bucket, cycle)}</span></p>
    <p data-testid="forecast">${describeForecast(forecast, product)}</p>
    ${bucket.is_shared && html`<p class="muted">Shared allowance <bdi>${bucket.shared_allowance_name ?? bucket.shared_allowance_id ?? ""}</bdi>: the forecast is that of all its members together.</p>`}
    ${isTold(error) && html`<p class="error">${error.message}</p>`}
    ${
        cycle.used.length > 0
            ? html`<${Chart} columns=${columns} lines=${lines} range=${range} height=${240}
            label="Burn-down, described beside it" />
        <${Legend} lines=${lines} /><${Days} cycle=${cycle} range=${range} />`
            : html`<canvas class="no-samples" width="1" height="1" aria-hidden="true"></canvas>`
    }
    <p class="muted" data-testid="chart-summary">${describeSamples(cycle, data)}</p>
    ${open && html`<${UsageTable} cycle=${cycle} />`}
  </section>`;
}

/** The present cycle and those before it: `used` as `[ms, GB]`, `begin`, `end`, `limit`. A fall begins a new cycle. */
function readCycle(bucket, forecast, data) {
    const points = (data?.t ?? [])
        .map((time, i) => [time, (data.series[0].v ?? data.series[0].max)[i]])
        .filter(([, value]) => value !== null);
    const cycles = [[]];
    points.forEach(([time, value], i) => {
        if (i > 0 && value < points[i - 1][1] - 1e-9) cycles.push([]);
        cycles.at(-1).push([time, value]);
    });
    const used = cycles.pop();
    const begin = toMs(bucket.valid_from) ?? used[0]?.[0] ?? now() - 30 * DAY;
    const end =
        toMs(forecast?.cycle_end) ?? toMs(bucket.valid_until) ?? toMs(bucket.entitlement_renew) ?? begin + 30 * DAY;
    // A bucket without a limit of its own has that of its product, or of those who share it, which the forecast knows.
    const limit =
        bucket.entitlement_gb ??
        forecast?.entitlement_gb ??
        (bucket.remaining_gb === undefined ? null : bucket.used_gb + bucket.remaining_gb);
    return {
        used: used.filter(([time]) => time >= begin),
        earlier: cycles.slice(-EARLIER_CYCLES).filter((part) => part[0][1] < 0.1 * part.at(-1)[1]),
        begin,
        end: Math.max(end, begin + DAY),
        limit,
        isShared: bucket.is_shared,
    };
}

function prepare(cycle, forecast) {
    const tables = [];
    const lines = [];
    const add = (points, line) => {
        if (points.length < 2) return;
        tables.push([points.map(([time]) => time / 1000), points.map(([, value]) => value)]);
        lines.push({ unit: "GB", fromZero: true, ...line });
    };
    for (const part of cycle.earlier)
        add(shift(part, cycle), { label: "earlier cycle", color: color("muted"), width: 0.8 });
    if (cycle.limit) {
        add(
            [
                [cycle.begin, 0],
                [cycle.end, cycle.limit],
            ],
            { label: "even pace", color: color("muted"), dash: [4, 4], width: 1 },
        );
        add(
            [
                [cycle.begin, cycle.limit],
                [cycle.end, cycle.limit],
            ],
            { label: "entitlement", color: lineColor(1), width: 1.5 },
        );
    }
    const last = cycle.used.at(-1);
    if (last && forecast?.status === "ok" && last[0] < cycle.end) {
        // Of a shared allowance the forecast speaks of what all its members use.
        const begin = [last[0], cycle.isShared ? (forecast.used_gb ?? last[1]) : last[1]];
        const fan = (name) => [begin, [cycle.end, forecast[`used_at_end_${name}_gb`]]];
        add(fan("p90"), { label: "p90", hidden: true, color: lineColor(0), band: `${lineColor(0)}33` });
        add(fan("p10"), { label: "p10", hidden: true, color: lineColor(0) });
        add(fan("p50"), { label: "expected", color: lineColor(0), dash: [3, 3], width: 1.5 });
    }
    // Before the first report nothing is known, but that a cycle begins at zero.
    const start = cycle.used.length && cycle.used[0][0] - cycle.begin < 2 * DAY ? [[cycle.begin, 0]] : [];
    // The newest report has a dot: a few hours of a month are no line that anybody sees.
    add([...start, ...cycle.used], { label: "used", color: lineColor(0), width: 2.5, dot: "newest" });
    return { columns: tables.length ? globalThis.uPlot.join(tables) : [[]], lines };
}

const shift = (points, cycle) =>
    points.map(([time, value]) => [time - points[0][0] + cycle.begin, value]).filter(([time]) => time <= cycle.end);

function Legend({ lines }) {
    const shown = lines.filter((line, i) => !line.hidden && lines.findIndex(({ label }) => label === line.label) === i);
    const words = {
        used: "line-1 thick",
        expected: "line-1 dashed",
        "even pace": "muted dashed",
        entitlement: "line-2",
        "earlier cycle": "muted",
    };
    return html`<div class="legend small">${shown.map(
        ({ label }) => html`<span key=${label}><i aria-hidden="true"
      class=${`stroke ${words[label]}`}></i>${label}</span>`,
    )}</div>`;
}

/** What was used on each day of the cycle, in UTC, as bars. */
function Days({ cycle, range }) {
    const amounts = useMemo(() => perDay(cycle), [cycle]);
    const columns = useMemo(
        () => [amounts.map(([time]) => (time + DAY / 2) / 1000), amounts.map(([, value]) => value)],
        [amounts],
    );
    const lines = useMemo(
        () => [
            {
                label: "used on this day",
                unit: "GB",
                color: lineColor(0),
                fill: `${lineColor(0)}66`,
                fromZero: true,
                paths: globalThis.uPlot.paths.bars({ size: [0.7, 24] }),
            },
        ],
        [useStore(look)],
    );
    return (
        amounts.length > 1 &&
        html`<h3 class="small">Used on each day</h3><${Chart} columns=${columns} lines=${lines} range=${range}
        height=${120} label="Used on each day, in the table" />`
    );
}

/** `[day, GB]`; a day whose beginning or whose end nobody reported is left out. */
function perDay(cycle) {
    const last = new Map();
    for (const [time, value] of cycle.used) last.set(Math.floor(time / DAY) * DAY, value);
    const before = new Map([[Math.floor(cycle.begin / DAY) * DAY - DAY, 0], ...last]);
    return [...last]
        .filter(([time]) => before.has(time - DAY))
        .map(([time, value]) => [time, value - before.get(time - DAY)]);
}

function describeUsage(bucket, cycle) {
    const of = cycle.limit ? ` of ${number(cycle.limit)}` : "";
    return `${number(bucket.used_gb)}${of} GB, cycle ${day(cycle.begin)} – ${day(cycle.end - 1000)}${bucket.overage_blocks === undefined ? "" : `, ${plural(bucket.overage_blocks, "block")}`}`;
}

/** When it runs out, between which days, and how many blocks are to be expected. */
function describeForecast(forecast, product) {
    if (!forecast) return "No forecast yet: it comes with the next report of usage.";
    if (forecast.status === "unlimited") return "Unlimited: it does not run out.";
    if (forecast.status !== "ok") return "No forecast yet: there is not enough data. It needs three full days of usage, and a limit.";
    const { exhausted_p10: early, exhausted_p50: middle } = forecast;
    const reached = middle && Date.parse(middle) <= now();
    const between = reached ? "" : describeBand(forecast);
    const words = middle
        ? `${reached ? "Exhausted" : "Exhausts"} ${reached ? dayAndTime(Date.parse(middle)) : day(Date.parse(middle))}${between}.`
        : `It lasts until the end of the cycle${early ? `; in one case of ten it is exhausted by ${day(Date.parse(early))}` : ""}.`;
    return html`<b>${words}</b> ${describeBlocks(forecast, product)} <span
      class="muted">Confidence ${forecast.confidence}.</span>`;
}

/** Between which days an allowance runs out, in eight cases of ten. */
export function describeBand({ exhausted_p10: early, exhausted_p90: late }) {
    return early && late ? ` (${day(Date.parse(early))} – ${day(Date.parse(late))})` : "";
}

function describeBlocks(forecast, product) {
    const { overage_p10_blocks: low, overage_p50_blocks: middle, overage_p90_blocks: high } = forecast;
    if (middle === undefined) return "";
    const size = product.overage_increment_gb ? ` of ${number(product.overage_increment_gb)} GB` : "";
    const price = forecast.overage_price === undefined ? "" : ` at ${number(forecast.overage_price)} ${forecast.overage_currency ?? ""}`;
    return `${plural(middle, "block")} (${low}–${high})${size}${price.trimEnd()} expected by the end of the cycle.`;
}

function describeSamples(cycle, data) {
    if (!data) return "Loading …";
    if (!cycle.used.length) return "no samples in this span";
    const [time, value] = cycle.used.at(-1);
    return `${plural(cycle.used.length, "report")} in this cycle; newest ${number(value)} GB at ${dayAndTime(time)}.`;
}

function UsageTable({ cycle }) {
    return html`<div class="chart-table" tabindex="0" role="region" aria-label="Values"><table data-testid="chart-table">
    <thead><tr><th scope="col">Time</th><th scope="col">Used (GB)</th></tr></thead>
    <tbody>${cycle.used.map(
        ([time, value]) => html`<tr key=${time}><td><time datetime=${iso(time)}>${fullTime(time)}</time></td>
      <td><data data-name="used_gb" value=${String(value)}>${value}</data></td></tr>`,
    )}</tbody></table></div>`;
}
