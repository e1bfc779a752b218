/** The fleet: a table of all terminals, of which only the rows in view are drawn. */
import { now } from "./api.js";
import { bridge } from "./bridge.js";
import { calls, loadCalls } from "./calls.js";
import { choices, compareText, filterRows, fleet, loadFleet } from "./fleetdata.js";
import { day, fixed, fullTime, plural, UNKNOWN, zone } from "./format.js";
import { html, useEffect, useMemo, useRef, useState } from "./html.js";
import { address, go, route, setQuery } from "./router.js";
import { readSetting, useStore, writeSetting } from "./store.js";
import { Ago, csvCell, download, Message, Page, StaleSign, State, UsageBar, useNow } from "./ui.js";
import { useWindow } from "./window.js";

/** Columns that can be shown: name of the fleet's column, head, width as in a grid, and how a cell is drawn. */
const COLUMNS = [
  { name: "name", label: "Name", width: "minmax(11rem, 2fr)", cell: (row) => html`<${NameCell} row=${row} />` },
  { name: "state", label: "State", width: "minmax(5.5rem, .7fr)", cell: (row) => html`<${State} state=${row.state} />` },
  { name: "sinr_db", label: "SINR dB", width: "minmax(5.5rem, .6fr)", number: true, cell: (row) => measured(row.sinr_db, 1, row, "sinr_ts") },
  { name: "link_availability_pct", label: "Avail. %", width: "minmax(5.5rem, .6fr)", number: true, cell: (row) => measured(row.link_availability_pct, 2, row, "availability_ts") },
  { name: "used_pct", label: "Usage of allowance", width: "minmax(11.5rem, 1.2fr)", cell: (row) => html`<${UsageBar} percent=${row.used_pct} blocks=${row.overage_blocks} unlimited=${row.forecast_status === "unlimited"} />` },
  { name: "exhausted_ts", label: "Exhausted", width: "minmax(6.5rem, .7fr)", cell: (row) => html`<${Exhausted} row=${row} />` },
  { name: "seen_ts", label: "Seen", width: "minmax(6.5rem, .7fr)", cell: (row) => html`<${Ago} time=${row.seen_ts} />` },
  { name: "imei", label: "IMEI", width: "minmax(9.5rem, .8fr)", optional: true, cell: (row) => row.imei },
  { name: "end_customer", label: "Customer", width: "minmax(9rem, 1fr)", optional: true, cell: (row) => row.end_customer ?? UNKNOWN },
  { name: "site", label: "Site", width: "minmax(9rem, 1fr)", optional: true, cell: (row) => row.site ?? row.site_id ?? UNKNOWN },
  { name: "distribution_partner", label: "Partner", width: "minmax(9rem, 1fr)", optional: true, cell: (row) => row.distribution_partner ?? UNKNOWN },
  { name: "product", label: "Product", width: "minmax(9rem, 1fr)", optional: true, cell: (row) => row.product ?? row.product_id ?? UNKNOWN },
];
const CALL_OF = { sinr_ts: "ut_signal_quality", availability_ts: "ut_link_availability" };

export function FleetPage() {
  const data = useStore(fleet);
  const { query } = useStore(route);
  useEffect(() => { loadFleet(); loadCalls(); }, []);
  useNow();
  useStore(calls);
  useStore(zone);
  const [shown, setShown] = useState(readSetting("columns", COLUMNS.filter((column) => !column.optional).map((column) => column.name)));
  const order = useOrder(data, query);
  if (data?.rows.length === 0 && !data.error) return html`<${NoTerminals} />`;
  const offline = order.filter((row) => row.state !== "online").length;
  const counts = data && html`<p class="counts" role="status">${plural(order.length, "terminal")} · ${offline} offline</p>`;
  const change = (columns) => { setShown(columns); writeSetting("columns", columns); };
  return html`<${Page} name="fleet" title="Fleet" heading=${counts} ready=${data !== null}>
    ${data && html`<div class="tools">
      <${FleetFilters} rows=${data.rows} query=${query} />
      <span class="spacer"></span>
      <${ColumnChoice} shown=${shown} onChange=${change} />
      <button onClick=${() => download("fleet.csv", fleetCsv(order))}>CSV</button>
    </div>`}
    ${data?.error && html`<${Message} kind="bad">${data.error.message}<//>`}
    ${data && html`<${FleetTable} rows=${order} query=${query} columns=${COLUMNS.filter((column) => shown.includes(column.name))} />`}
  <//>`;
}

/** The page while there are no terminals: a sentence where all is well, else the steps of the set-up. */
function NoTerminals() {
  const [SetupPage, setSetupPage] = useState(null);
  const api = useStore(bridge)?.info?.api;
  const listing = useStore(calls)?.calls.find((call) => call.call === "user_terminals");
  const sentence = api?.state === "ok" && listing && explainEmpty(listing);
  useEffect(() => { if (!sentence) import("./setup.js").then((module) => setSetupPage(() => module.SetupPage), () => null); }, [sentence]);
  if (SetupPage && !sentence) return html`<${SetupPage} />`;
  return html`<${Page} name="fleet" title="Fleet" ready=${Boolean(sentence)}>${sentence && html`<${Message}>${sentence}<//>`}<//>`;
}

function explainEmpty(listing) {
  if (listing.status === "ok") return "No terminals: the API lists none, or none passes the filter of the configuration.";
  if (!listing.enabled) return "No terminals yet: user_terminals is disabled; switch it on in the Polling Manager.";
  return ["waiting", "polling"].includes(listing.status) ? "No terminals yet: user_terminals was not polled since the start; they come with its first poll." : null;
}

export function FleetFilters({ rows, query }) {
  const states = [...new Set(rows.map((row) => row.state).filter(Boolean))].sort();
  const customers = useMemo(() => choices(rows, "end_customer_id", "end_customer"), [rows.length]);
  const sites = useMemo(() => choices(filterRows(rows, { customer: query.customer }), "site_id", "site"), [rows.length, query.customer]);
  return html`
    <${Choice} label="State" name="state" value=${query.state} options=${states.map((state) => [state, state])} />
    <${Choice} label="Customer" name="customer" value=${query.customer} options=${customers} />
    <${Choice} label="Site" name="site" value=${query.site} options=${sites} />
    ${(query.q || query.state || query.customer || query.site) && html`<button class="quiet"
      onClick=${() => setQuery({ q: "", state: "", customer: "", site: "" })}>Clear</button>`}`;
}

/** A selection whose value stands in the address; a name there is as good as an id. */
export function Choice({ label, name, value = "", options }) {
  const chosen = options.find((option) => option.includes(value))?.[0] ?? value;
  const missing = chosen && !options.some(([id]) => id === chosen);
  return html`<label class="choice"><span>${label}</span>
    <select aria-label=${label} value=${chosen} onChange=${(event) => setQuery({ [name]: event.target.value }, false)}>
      <option value="">all</option>
      ${missing && html`<option value=${chosen}>${chosen}</option>`}
      ${options.map(([id, text]) => html`<option key=${id} value=${id}>${shorten(text)}</option>`)}
    </select></label>`;
}

const shorten = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);

function ColumnChoice({ shown, onChange }) {
  const toggle = (name) => onChange(shown.includes(name) ? shown.filter((column) => column !== name) : [...shown, name]);
  return html`<details class="menu"><summary>Columns</summary><div>
    ${COLUMNS.slice(1).map(({ name, label }) => html`<label key=${name}>
      <input type="checkbox" checked=${shown.includes(name)} onChange=${() => toggle(name)} /> ${label}</label>`)}
  </div></details>`;
}

/**
 * The rows in their order. A value that changes does not move its row: each row keeps the place that it had when it
 * was sorted, until somebody sorts anew.
 */
function useOrder(data, query) {
  const sort = query.sort ?? "name";
  const places = useRef({ sort: null, keys: new Map() });
  return useMemo(() => {
    if (!data) return [];
    if (places.current.sort !== sort) places.current = { sort, keys: new Map() };
    const { keys } = places.current;
    const column = sort.replace(/^-/, "");
    for (const row of data.rows) if (!keys.has(row.imei)) keys.set(row.imei, sortKey(row, column));
    return filterRows(data.rows, query).sort(comparison(keys, sort.startsWith("-") ? -1 : 1));
  }, [data?.version, query.q, query.state, query.customer, query.site, sort]);
}

const sortKey = (row, column) => row[column] ?? (column === "name" ? row.imei : null);

/** What is missing comes last in both directions; equal values are in the order of their ids. */
function comparison(keys, direction) {
  return (a, b) => {
    const x = keys.get(a.imei);
    const y = keys.get(b.imei);
    if (x === null || y === null) return (x === null) - (y === null) || (a.imei < b.imei ? -1 : 1);
    const order = typeof x === "string" ? compareText(x, y) : x - y;
    return direction * order || (a.imei < b.imei ? -1 : 1);
  };
}

function FleetTable({ rows, query, columns }) {
  const sort = query.sort ?? "name";
  const body = useRef(null);
  const { first, last, height, total } = useWindow(body, rows.length);
  const grid = { gridTemplateColumns: columns.map((column) => column.width).join(" ") };
  return html`<div role="table" class="fleet" aria-label="Terminals" aria-rowcount=${rows.length + 1}>
    <div role="rowgroup" class="fleet-head"><div role="row" class="fleet-row" aria-rowindex="1" style=${grid}>
      ${columns.map((column) => html`<${Head} key=${column.name} column=${column} sort=${sort} />`)}
    </div></div>
    <div role="rowgroup" class="fleet-body" ref=${body} style=${{ height: `${total}px` }}>
      ${rows.slice(first, last).map((row, i) => html`<${FleetRow} key=${row.imei} row=${row} index=${first + i} height=${height} columns=${columns} grid=${grid} />`)}
    </div>
    ${rows.length === 0 && html`<${Message}>No terminal passes these filters.<//>`}
  </div>`;
}

function Head({ column, sort }) {
  const sorted = sort === column.name ? "ascending" : sort === `-${column.name}` ? "descending" : "none";
  const click = () => setQuery({ sort: sorted === "ascending" ? `-${column.name}` : column.name });
  return html`<div role="columnheader" data-head=${column.name} aria-sort=${sorted} class=${column.number ? "number" : ""}>
    <button onClick=${click}>${column.label}<span class="arrow" aria-hidden="true"
      >${{ ascending: "▲", descending: "▼", none: "" }[sorted]}</span></button></div>`;
}

function FleetRow({ row, index, height, columns, grid }) {
  const open = (event) => { if (!event.target.closest("a")) go(address("terminal", row.imei)); };
  return html`<div role="row" class="fleet-row" data-testid="fleet-row" data-id=${row.imei} aria-rowindex=${index + 2}
      style=${{ ...grid, top: `${index * height}px`, height: `${height}px` }} onClick=${open}>
    ${columns.map((column) => html`<div role="cell" key=${column.name} data-column=${column.name} class=${column.number ? "number" : ""}>${column.cell(row)}</div>`)}
  </div>`;
}

const NameCell = ({ row }) => html`<a href=${address("terminal", row.imei)} title=${row.imei}><bdi>${shorten(row.name ?? row.imei)}</bdi></a>
  <span class="below"><bdi>${shorten(row.end_customer ?? row.site ?? row.imei)}</bdi></span>`;

/** A value that is grey when it is older than three intervals of its call and the lateness of its report. */
function measured(value, digits, row, timeColumn) {
  const time = row[timeColumn];
  if (value === null) return UNKNOWN;
  const call = calls.get()?.calls.find(({ call: name }) => name === CALL_OF[timeColumn]);
  const stale = call && time && now() - time > 1000 * (3 * call.effective_interval + (call.lateness ?? 0));
  return html`<span class=${stale ? "stale" : ""} title=${time ? fullTime(time) : undefined}>${fixed(value, digits)}${stale && html`<${StaleSign} />`}</span>`;
}

function Exhausted({ row }) {
  if (row.exhausted_ts === null) {
    if (row.used_pct >= 100) return html`<span class="bad">exhausted</span>`;
    return html`<span class="unknown" title=${row.forecast_status === "not_enough_data" ? "not enough data" : undefined}>${UNKNOWN}</span>`;
  }
  if (row.exhausted_ts <= now()) return html`<span class="bad" title=${fullTime(row.exhausted_ts)}>exhausted</span>`;
  return html`<time datetime=${new Date(row.exhausted_ts).toISOString()} title=${fullTime(row.exhausted_ts)}>${day(row.exhausted_ts)}</time>`;
}

/** The rows that are shown, with all columns of the fleet. */
function fleetCsv(rows) {
  if (!rows.length) return "";
  const names = Object.keys(rows[0]);
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((cells) => cells.map(csvCell).join(",")).join("\r\n") + "\r\n";
}
