/** The fleet: a table of all terminals, of which only the rows in view are drawn. */
import { get } from "./api.js";
import { bridge } from "./bridge.js";
import { calls, loadCalls } from "./calls.js";
import { filterRows, fleet, loadFleet } from "./fleetdata.js";
import { FleetFilters } from "./filters.js";
import { COLUMNS, isExhausted } from "./fleetcells.js";
import { iso, number, plural, zone } from "./format.js";
import { Component, html, useEffect, useMemo, useRef, useState } from "./html.js";
import { Menu } from "./menu.js";
import { address, go, route, setQuery } from "./router.js";
import { useSubtree } from "./subtree.js";
import { readSetting, useStore, writeSetting } from "./store.js";
import { compareSortable, sortable } from "./textorder.js";
import { csvCell, download, Message, Page, Problem, useLater, useNow } from "./ui.js";
import { useWindow } from "./window.js";

export function FleetPage() {
    const data = useStore(fleet);
    const { query } = useStore(route);
    useEffect(() => {
        loadFleet();
        loadCalls();
    }, []);
    // Ages, staleness and times in the cells depend on these: when one changes, all rows are drawn anew.
    const looks = [useNow(), useStore(calls), useStore(zone)];
    const [shown, setShown] = useState(
        readSetting(
            "columns",
            COLUMNS.filter((column) => !column.optional).map((column) => column.name),
        ),
    );
    const below = useSubtree(query.organization);
    const order = useOrder(data, query, below);
    const later = useLater(data !== null);
    if (data?.rows.length === 0 && !data.error) return html`<${NoTerminals} />`;
    const counts = data && html`<p class="counts" role="status"><${Counts} rows=${order} query=${query} /></p>`;
    const change = (columns) => {
        setShown(columns);
        writeSetting("columns", columns);
    };
    return html`<${Page} name="fleet" title="Fleet" heading=${counts}
        ready=${later && (!query.organization || below !== null)}>
    ${
        data &&
        html`<div class="tools">
      <${FleetFilters} rows=${data.rows} query=${query} complete=${later} />
      <span class="spacer"></span>
      <${ColumnChoice} shown=${shown} onChange=${change} />
      <button onClick=${() => download("fleet.csv", fleetCsv(order))}>CSV</button>
    </div>`
    }
    <${Problem} error=${data?.error} />
    ${
        data &&
        html`<${FleetTable} rows=${order} query=${query} looks=${looks}
        columns=${COLUMNS.filter((column) => shown.includes(column.name))} />`
    }
  <//>`;
}

/** How many terminals are shown, and how many are in each state besides online; a state leads to those in it. */
function Counts({ rows, query }) {
    const counts = new Map();
    for (const { state } of rows) counts.set(state ?? "unknown", (counts.get(state ?? "unknown") ?? 0) + 1);
    const unknown = counts.get("unknown") ?? 0;
    if (unknown < rows.length && !counts.has("offline")) counts.set("offline", 0);
    const others = [...counts.keys()].filter((state) => state !== "online" && state !== "unknown").sort();
    const link = (state) => {
        const words = `${number(counts.get(state))} ${state}`;
        if (!counts.get(state) || query.state === state) return ` · ${words}`;
        return html` · <a href=${address("fleet", "", { ...query, state })}>${words}</a>`;
    };
    return html`${plural(rows.length, "terminal")}${others.map(link)}${unknown > 0 && ` · ${number(unknown)} unknown`}`;
}

/** The page while there are no terminals: a sentence where the set-up is done, else its steps. */
function NoTerminals() {
    const [SetupPage, setSetupPage] = useState(null);
    const [explored, setExplored] = useState(null);
    const api = useStore(bridge)?.info?.api;
    const listing = useStore(calls)?.calls.find((call) => call.call === "user_terminals");
    const sentence = api?.state === "ok" && listing && explainEmpty(listing);
    const isSetUp = explored && sentence;
    useEffect(() => {
        get("exploration").then(
            ({ exploration }) => setExplored(exploration !== null),
            () => setExplored(false),
        );
        import("./setup.js").then(
            (module) => setSetupPage(() => module.SetupPage),
            () => null,
        );
    }, []);
    if (SetupPage && explored !== null && api && listing && !isSetUp) return html`<${SetupPage} isEmpty sentence=${sentence} />`;
    return html`<${Page} name="fleet" title="Fleet"
      ready=${Boolean(isSetUp)}>${isSetUp && html`<${Message}>${sentence}<//>`}<//>`;
}

function explainEmpty(listing) {
    const isBetweenPolls = ["waiting", "polling"].includes(listing.status);
    if (listing.status === "ok" || (isBetweenPolls && listing.last_success))
        return "No terminals: the API lists none, or none passes the filter of the configuration.";
    if (!listing.enabled) return "No terminals yet: user_terminals is disabled; switch it on in the Polling Manager.";
    return isBetweenPolls ? "No terminals yet: they come with the first poll of user_terminals that succeeds." : null;
}

function ColumnChoice({ shown, onChange }) {
    const toggle = (name) =>
        onChange(shown.includes(name) ? shown.filter((column) => column !== name) : [...shown, name]);
    return html`<${Menu} label="Columns">
    ${COLUMNS.slice(1).map(
        ({ name, label }) => html`<label key=${name}>
      <input type="checkbox" checked=${shown.includes(name)} onChange=${() => toggle(name)} /> ${label}</label>`,
    )}
  <//>`;
}

/**
 * The rows in their order. A value that changes does not move its row: each row keeps the place that it had when it
 * was sorted, until somebody sorts anew.
 */
function useOrder(data, query, below) {
    const sort = query.sort ?? "name";
    const places = useRef({ sort: null, keys: new Map() });
    return useMemo(() => {
        if (!data) return [];
        if (places.current.sort !== sort) places.current = { sort, keys: new Map() };
        const { keys } = places.current;
        const column = sort.replace(/^-/, "");
        for (const row of data.rows) if (!keys.has(row.imei)) keys.set(row.imei, sortKey(row, column));
        return sortRows(filterRows(data.rows, query), keys, sort.startsWith("-") ? -1 : 1);
    }, [data?.version, query.q, query.state, query.customer, query.site, query.organization, below, sort]);
}

function sortKey(row, column) {
    if (column === "exhausted_ts" && isExhausted(row)) return row.exhausted_ts ?? -Infinity;
    const value = row[column] ?? (column === "name" ? row.imei : null);
    return typeof value === "string" ? sortable(value) : value;
}

/** What is missing comes last in both directions; equal values are in the order of their ids. */
function sortRows(rows, keys, direction) {
    const entries = rows.map((row) => ({ row, key: keys.get(row.imei), id: row.imei }));
    entries.sort((a, b) => {
        if (a.key === b.key) return a.id < b.id ? -1 : 1;
        if (a.key === null || b.key === null) return a.key === null ? 1 : -1;
        const order = typeof a.key === "object" ? compareSortable(a.key, b.key) : a.key - b.key;
        return direction * order || (a.id < b.id ? -1 : 1);
    });
    return entries.map((entry) => entry.row);
}

function FleetTable({ rows, query, columns, looks }) {
    const sort = query.sort ?? "name";
    const body = useRef(null);
    const { first, last, height, total } = useWindow(body, rows.length);
    const head = useRef(null);
    // Where the columns need more than there is, head and rows scroll together, beside the page.
    const follow = ({ currentTarget: { scrollLeft } }) => {
        for (const { current } of [head, body]) if (current.scrollLeft !== scrollLeft) current.scrollLeft = scrollLeft;
    };
    const grid = useMemo(() => gridOf(columns), [columns.length, columns.map(({ name }) => name).join()]);
    return html`<div role="table" class="fleet" aria-label="Terminals" aria-rowcount=${rows.length + 1}
      data-sort=${sort.replace(/^-/, "")}>
    <div role="rowgroup" class="fleet-head" ref=${head} onScroll=${follow}><div role="row" class="fleet-row" aria-rowindex="1" style=${grid}>
      ${columns.map((column) => html`<${Head} key=${column.name} column=${column} sort=${sort} />`)}
    </div></div>
    <div role="rowgroup" class="fleet-body" ref=${body} onScroll=${follow} style=${{ height: `${total}px` }}>
      ${rows.slice(first, last).map(
          (row, i) => html`<${FleetRow} key=${row.imei} row=${row} index=${first + i} height=${height} columns=${columns}
          grid=${grid} looks=${looks} />`,
      )}
    </div>
    ${rows.length === 0 && html`<${Message}>No terminal passes these filters. <a href="#/">Show all</a><//>`}
  </div>`;
}

/** Columns as wide as they want to be, and the least width of a row that has them all. */
function gridOf(columns) {
    const least = columns.map(({ width }) => parseFloat(width.match(/[\d.]+/)[0])).reduce((a, b) => a + b, 0);
    return {
        gridTemplateColumns: columns.map((column) => column.width).join(" "),
        minWidth: `${least + 1.1 * (columns.length - 1) + 1.8}rem`,
    };
}

function Head({ column, sort }) {
    const sorted = sort === column.name ? "ascending" : sort === `-${column.name}` ? "descending" : "none";
    const click = () => setQuery({ sort: sorted === "ascending" ? `-${column.name}` : column.name });
    return html`<div role="columnheader" data-head=${column.name} aria-sort=${sorted}
      class=${column.number ? "number" : ""}>
    <button onClick=${click} title=${column.about}>${column.label}<span class="arrow" aria-hidden="true"
      >${{ ascending: "▲", descending: "▼", none: "" }[sorted]}</span></button></div>`;
}

/** A row is drawn anew only when something of it changed: most of them did not, each time that values come. */
class FleetRow extends Component {
  shouldComponentUpdate(next) {
    const { row, index, height, columns, looks } = this.props;
    if (next.row !== row || next.index !== index || next.height !== height) return true;
    if (next.columns.length !== columns.length || next.columns.some((column, i) => column !== columns[i])) return true;
    return next.looks.some((look, i) => look !== looks[i]);
  }

  render({ row, index, height, columns, grid }) {
    const open = (event) => {
      if (!event.target.closest("a")) go(address("terminal", row.imei));
    };
    return html`<div role="row" class="fleet-row" data-testid="fleet-row" data-id=${row.imei} aria-rowindex=${index + 2}
        style=${{ ...grid, top: `${index * height}px`, height: `${height}px` }} onClick=${open}>
      ${columns.map(
        (column) => html`<div role="cell" key=${column.name} data-column=${column.name}
          class=${column.number ? "number" : ""}>${column.cell(row)}</div>`,
      )}
    </div>`;
  }
}

/** The rows that are shown, with all columns of the fleet; behind them each `_ts` as a time that people read. */
function fleetCsv(rows) {
    if (!rows.length) return "";
    const names = Object.keys(rows[0]);
    const times = names.filter((name) => name.endsWith("_ts"));
    const written = (ms) => (ms === null ? null : iso(ms));
    const head = [...names, ...times.map((name) => name.replace(/_ts$/, "_time"))];
    return (
        [head, ...rows.map((row) => [...names.map((name) => row[name]), ...times.map((name) => written(row[name]))])]
            .map((cells) => cells.map(csvCell).join(","))
            .join("\r\n") + "\r\n"
    );
}
