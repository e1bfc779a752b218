/** Trends of one terminal or product: spans, and a chart with summary and table for each report. */
import { API, now, withQuery } from "./api.js";
import { Chart, color, lineColor, look } from "./chart.js";
import { DAY, dayAndTime, describeField, duration, fullTime, iso, number, plural, quantity, scaleOf, zone } from "./format.js";
import { html, useEffect, useMemo, useState } from "./html.js";
import { route, setQuery } from "./router.js";
import { useStore } from "./store.js";
import { StateStrip } from "./strip.js";
import { isTold, useResource } from "./ui.js";

const SPANS = {
  "1h": DAY / 24,
  "6h": DAY / 4,
  "24h": DAY,
  "7d": 7 * DAY,
  "30d": 30 * DAY,
  "90d": 90 * DAY,
  "1y": 365 * DAY,
  "2y": 730 * DAY,
};
/** The spans out of which somebody has zoomed, the last one last. */
const spansBefore = [];
/** Assumed of reports whose period is not known, in seconds. */
const PERIOD_S = 300;
/** Up to so many samples each has a point; beyond it only those without neighbours. */
const MAX_POINTS_DRAWN = 50;
const TITLES = {
  signal_quality: "Signal quality",
  link_availability: "Link availability",
  traffic: "Traffic",
  link_metrics: "Link metrics",
  resource_state: "State",
  throughput: "Throughput",
};

/** The span of an address: `{since, until, length}`; with a span by name both ends move with the time. */
export function spanOf(query) {
  const from = Date.parse(query.from ?? "");
  const to = Date.parse(query.to ?? "");
  if (from < to) return { since: iso(from), until: iso(to), name: null, length: to - from, from, to };
  const name = query.span in SPANS ? query.span : "24h";
  return { since: `${SPANS[name] / 1000}s`, until: undefined, name, length: SPANS[name] };
}

export function SpanButtons({ query }) {
  const span = spanOf(query);
  const choose = (name) => setQuery({ span: name === "24h" ? "" : name, from: "", to: "" }, false);
  return html`<div class="spans" role="group" aria-label="Span">
    ${Object.keys(SPANS).map((name) => html`<button key=${name} aria-pressed=${span.name === name}
        onClick=${() => choose(name)}>${name}</button>`)}
    <${FromTo} span=${span} />
    <span class="muted small drag-hint">Drag over a chart to zoom${span.name ? "" : ", double click to go back"}.</span>
  </div>`;
}

/** Any span, by two dates and times in the zone that is shown. */
function FromTo({ span }) {
  const utc = useStore(zone) === "UTC";
  const written = (ms) =>
    new Date(ms - (utc ? 0 : new Date(ms).getTimezoneOffset() * 60000)).toISOString().slice(0, 16);
  const read = (text) => Date.parse(text + (utc ? "Z" : ""));
  const [from, to] = span.from ? [span.from, span.to] : [now() - span.length, now()];
  const change = (event) => {
    const form = event.currentTarget;
    const [since, until] = [read(form.elements.from.value), read(form.elements.to.value)];
    if (since < until) setQuery({ from: iso(since), to: iso(until), span: "" }, false);
  };
  return html`<form class="from-to" onChange=${change} onSubmit=${(event) => event.preventDefault()}>
    <label>from <input type="datetime-local" name="from" max="9999-12-31T23:59" value=${written(from)} /></label>
    <label>to <input type="datetime-local" name="to" max="9999-12-31T23:59" value=${written(to)} /></label>
  </form>`;
}

/** A chart with its head. `onReady(report, ready)` says whether its data are drawn. */
export function TrendChart({ entity, id, report, query, onReady, limits = {} }) {
  const [as, setAs] = useState("rate");
  const [open, setOpen] = useState(false);
  const span = spanOf(query);
  const parameters = { entity, id, report, since: span.since, until: span.until };
  const concerns = (name, data) => !span.from && name === "sample" && data.id === id && data.report === report;
  const path = withQuery("series", { ...parameters, as: as === "rate" ? undefined : as });
  const { data, error, ready } = useResource(path, concerns);
  useEffect(() => onReady(report, ready), [report, ready]);
  const counters = data?.series.some((series) => series.kind === "cumulative");
  const title = TITLES[report] ?? describeField(report).label;
  return html`<section class="card chart" data-testid="chart" data-report=${report}>
    <header><h2>${title}</h2>
      ${
        counters &&
        html`<span role="group" aria-label="Counters as" class="toggle">
        ${["rate", "total"].map((kind) => html`<button key=${kind} aria-pressed=${as === kind}
            onClick=${() => setAs(kind)}>${kind === "rate" ? "Rate" : "Total"}</button>`)}</span>`
      }
      <span class="spacer"></span>
      <a class="button" href=${API + withQuery("series.csv", parameters)} download=${`${id}-${report}.csv`}>CSV</a>
      <button aria-expanded=${open} onClick=${() => setOpen(!open)}>Table</button>
    </header>
    ${isTold(error) && html`<p class="error">${error.message}</p>`}
    ${!data && !error && html`<p class="muted">Loading …</p>`}
    ${data && html`<${Trend} data=${data} span=${span} title=${title} limits=${limits} />`}
    ${data && open && html`<${ChartTable} data=${data} />`}
  </section>`;
}

function Trend({ data, span, title, limits }) {
  if (!data.t.length)
    return html`<canvas class="no-samples" width="1" height="1" aria-hidden="true"></canvas>
    <p class="muted" data-testid="chart-summary">no samples in this span</p>`;
  const summary = html`<${Summary} data=${data} span=${span} limits=${limits} />`;
  if (data.series.every((series) => series.kind === "text")) return html`<${StateStrip} data=${data} span=${span} title=${title} />${summary}`;
  return html`<${Lines} data=${data} span=${span} title=${title} limits=${limits} />${summary}`;
}

/** Lines with a break in each gap; with bins the mean, and the band from minimum to maximum. */
function Lines({ data, span, title, limits }) {
  const drawn = useStore(look);
  const end = span.to ?? now();
  const begin = span.from ?? end - span.length;
  const range = [begin / 1000, end / 1000];
  const { columns, lines } = useMemo(() => prepare(data, limits, [begin, end]), [data, drawn]);
  const zoom = (from, to) => {
    const { from: begin = "", to: end = "", span: name = "" } = route.get().query;
    spansBefore.push({ from: begin, to: end, span: name });
    setQuery({ from: iso(from), to: iso(to), span: "" }, false);
  };
  const back = () => setQuery(spansBefore.pop() ?? { from: "", to: "", span: "" }, false);
  const mark = (chart) => shadeNotYet(chart, data.lateness);
  return html`<${Chart} columns=${columns} lines=${lines} label=${`${title}, described below`} range=${range}
      zoom=${zoom} back=${span.from ? back : null} mark=${mark} />`;
}

/** Columns and lines of a chart. What goes up is drawn below zero; `limits` are drawn as dashed lines. */
function prepare(data, limits, ends) {
  const breaks = data.gaps
    .map(([from, to]) => (from + to) / 2)
    .filter((time) => time > data.t[0] && time < data.t.at(-1));
  const limited = Object.entries(limits).filter(([, value]) => value);
  const times = [...new Set([...data.t, ...breaks, ...(limited.length ? ends : [])])].sort((a, b) => a - b);
  const places = new Map(data.t.map((time, i) => [time, i]));
  const columns = [times.map((time) => time / 1000)];
  const lines = [];
  const add = (line, values, sign) => {
    lines.push(line);
    columns.push(
      times.map((time) =>
        places.has(time) && values[places.get(time)] !== null ? sign * values[places.get(time)] : null,
      ),
    );
  };
  data.series
    .filter((series) => series.kind !== "text")
    .forEach((series, i) => {
      const sign = series.name.includes("_uplink_") ? -1 : 1;
      const line = {
        label: describeField(series.name).label,
        unit: series.unit ?? "",
        color: lineColor(i),
        fromZero: /^(B|bit|bps)/.test(series.unit ?? ""),
        mirrored: series.name.includes("link_bps"),
        points: data.t.length < MAX_POINTS_DRAWN || undefined,
      };
      if (series.v) return add(line, series.v, sign);
      add({ ...line, hidden: true, band: `${line.color}38` }, sign > 0 ? series.max : series.min, sign);
      add({ ...line, hidden: true }, sign > 0 ? series.min : series.max, sign);
      return add(line, series.mean, sign);
    });
  for (const [label, value] of limited) {
    const line = { label, unit: lines[0].unit, color: color("muted"), dash: [6, 5], width: 1 };
    lines.push({ ...line, mirrored: true, points: false });
    columns.push(times.map(() => value));
  }
  return { columns, lines };
}

// What is younger than the report's lateness has not come yet: that is no gap.
function shadeNotYet(chart, lateness) {
  const left = Math.max(chart.valToPos((now() - 1000 * lateness) / 1000, "x", true), chart.bbox.left);
  const right = Math.min(chart.valToPos(now() / 1000, "x", true), chart.bbox.left + chart.bbox.width);
  if (!lateness || right <= left) return;
  chart.ctx.save();
  chart.ctx.fillStyle = color("not-yet");
  chart.ctx.fillRect(left, chart.bbox.top, right - left, chart.bbox.height);
  chart.ctx.restore();
}

/** The chart in words, with the colours of its lines. */
function Summary({ data, span, limits }) {
  const word = isPresent(data, span) ? "now" : "last";
  const numbers = data.series.filter((series) => series.kind !== "text");
  const units = [...new Set(numbers.map((series) => series.unit))];
  return html`<div data-testid="chart-summary" class="summary">
    ${numbers.map(
      (
        series,
        i,
      ) => html`<span key=${series.name} class="of-line"><i aria-hidden="true"
          class=${`swatch line-${(i % 6) + 1}`}></i>
      ${describeSeries(series, word)}${units.indexOf(series.unit) === 1 && html` <span class="muted">(axis on the right)</span>`}</span> `,
    )}
    ${Object.entries(limits)
      .filter(([, value]) => value)
      .map(
        ([label, value]) => html`<span key=${label} class="of-line muted"><i aria-hidden="true"
          class="stroke dashed"></i>${label}: ${quantity(Math.abs(value), numbers[0]?.unit)}</span> `,
      )}
    ${numbers.length === 0 && data.series.map((series) => html`<span
        key=${series.name}>${describeStates(series, data.t, word)}</span> `)}
    <span class="muted">${describeSamples(data)}</span>
  </div>`;
}

/** Whether the newest value is that of now: the span reaches to now, and no further sample is missing yet. */
function isPresent(data, span) {
  const age = (now() - data.t.at(-1)) / 1000;
  return !span.to && age <= 3 * Math.max(data.period ?? 0, PERIOD_S) + data.lateness;
}

function describeSeries(series, word) {
  const { label } = describeField(series.name);
  const values = (series.v ?? series.mean).filter((value) => value !== null);
  if (!values.length) return `${label}: no values in this span.`;
  const min = (series.min ?? values).filter((value) => value !== null).reduce((a, b) => Math.min(a, b));
  const max = (series.max ?? values).filter((value) => value !== null).reduce((a, b) => Math.max(a, b));
  const mean = series.count ? weightedMean(series) : values.reduce((a, b) => a + b, 0) / values.length;
  const scale = scaleOf(series.unit, Math.max(Math.abs(min), Math.abs(max)));
  const [last, low, middle, high] = [values.at(-1), min, mean, max].map((value) => number(value / scale.factor));
  return `${label}: ${word} ${last} ${scale.unit}, min ${low}, mean ${middle}, max ${high}.`;
}

function weightedMean(series) {
  let [sum, count] = [0, 0];
  series.mean.forEach((mean, i) => {
    if (mean === null) return;
    sum += mean * series.count[i];
    count += series.count[i];
  });
  return sum / count;
}

function describeStates(series, times, word) {
  const changes = series.v.filter((value, i) => i > 0 && value !== series.v[i - 1]).length;
  return `${describeField(series.name).label}: ${word} ${series.v.at(-1)}, ${plural(changes, "change")} since ${dayAndTime(times[0])}.`;
}

function describeSamples(data) {
  const what = data.step
    ? `${plural(data.t.length, "interval")} of ${duration(1000 * data.step)}`
    : plural(data.t.length, "sample");
  const longest = Math.max(0, ...data.gaps.map(([from, to]) => to - from));
  const gaps = data.gaps.length
    ? `, ${plural(data.gaps.length, "gap")} (${data.gaps.length > 1 ? "the longest " : ""}${duration(longest)} without samples)`
    : "";
  const corrected = data.corrected.length ? `, ${data.corrected.length} corrected` : "";
  const late = data.lateness ? ` Newest are up to ${duration(1000 * data.lateness)} late.` : "";
  return `${what}${gaps}${corrected}; newest ${duration(Math.max(0, now() - data.t.at(-1)))} ago.${late}`;
}

/** A row for each point, unrounded. */
function ChartTable({ data }) {
  return html`<div class="chart-table" tabindex="0" role="region" aria-label="Values"><table data-testid="chart-table">
    <thead><tr><th scope="col">Time</th>${data.series.map((series) => html`<th scope="col"
        key=${series.name}>${describeField(series.name).label}${series.unit && ` (${series.unit})`}</th>`)}</tr></thead>
    <tbody>${data.t.length === 0 && html`<tr><td class="muted" colspan=${data.series.length + 1}>no samples in this span</td></tr>`}
    ${data.t.map(
      (time, i) => html`<tr key=${time}>
      <td><time datetime=${iso(time)}>${fullTime(time)}</time></td>
      ${data.series.map((series) => html`<td key=${series.name}><${Cell} series=${series} i=${i} /></td>`)}
    </tr>`,
    )}</tbody></table></div>`;
}

function Cell({ series, i }) {
  const value = (series.v ?? series.mean)[i];
  if (value === null || value === undefined) return "–";
  const band = series.mean && html`<span class="muted"> ${series.min[i]} … ${series.max[i]}, ${series.count[i]}</span>`;
  return html`<data data-name=${series.name} value=${String(value)}>${value}</data>${band}`;
}
