/** The fleet: one row for each terminal with its newest values, loaded once and kept true by the live stream. */
import { get } from "./api.js";
import { toMs } from "./format.js";
import { generation, start, subscribe } from "./live.js";
import { createStore } from "./store.js";
import { isBelow } from "./subtree.js";
import { sortByText } from "./textorder.js";

const RELOAD_MS = 20000;
const RELOAD_EMPTY_MS = 2000;
const REPORT_TIMES = { signal_quality: "sinr_ts", link_availability: "availability_ts" };

/** `rows` (objects by the names of the columns), `error`; `version` grows with each change. Null until loaded. */
export const fleet = createStore(null);

let byImei = new Map();
let byBucket = new Map();
let columns = [];
/** A row without values; read from JSON, because the browser keeps such an object in the shortest way. */
let blank = {};
let loading = null;
let timer = 0;

/** Loads the fleet where that did not happen yet; else the stream goes on where it was, as after a new sign-in. */
export function loadFleet() {
  if (loading) start();
  else loading = load();
}

async function load() {
  clearTimeout(timer);
  timer = 0;
  try {
    const answer = await get("fleet");
    columns = answer.columns;
    blank = JSON.parse(JSON.stringify(Object.fromEntries(columns.map((name) => [name, null]))));
    const rows = answer.rows.map(makeRow);
    byImei = new Map(rows.map((row) => [row.imei, row]));
    byBucket = new Map(rows.filter((row) => row.bucket_id).map((row) => [row.bucket_id, row]));
    publish(null);
    start(answer.seq);
  } catch (error) {
    fleet.set((old) => ({ rows: [], version: 0, ...old, error }));
    if (error.status === 401) {
      loading = null;
      return;
    }
    start();
    reloadLater();
  }
}

/** The row of a list of values. A copy of one with the same names takes a sixth of the memory of names added in turn. */
function makeRow(values) {
  const row = { ...blank };
  for (let i = 0; i < columns.length; i += 1) row[columns[i]] = values[i];
  return row;
}

function publish(error) {
  fleet.set((old) => ({ rows: [...byImei.values()], error, version: (old?.version ?? 0) + 1 }));
}

// What a message does not say by itself (a new terminal, another product) is asked for, but not with each message.
function reloadLater() {
  if (!timer && loading)
    timer = setTimeout(
      () => {
        loading = load();
      },
      byImei.size ? RELOAD_MS : RELOAD_EMPTY_MS,
    );
}

generation.subscribe(() => {
  if (loading) loading = load();
});

let scheduled = false;
subscribe((name, data) => {
  if (!fleet.get() || !apply(name, data) || scheduled) return;
  scheduled = true;
  queueMicrotask(() => {
    scheduled = false;
    publish(null);
  });
});

/** Takes a message over; true where a row changed. A row that changed is a new object. */
function apply(name, data) {
  if (name === "sample") return applySample(data);
  if (name === "state" && data.entity === "terminal") return applyTerminal(data);
  if (name === "state" && data.what === "usage") return applyUsage(data.body);
  if (name === "forecast") return patch(byBucket.get(data.bucket_id)?.imei, forecastColumns(data));
  if (name === "state" && data.entity === "product") reloadLater();
  return false;
}

function applySample({ entity, id, report, ts, values }) {
  const row = entity === "terminal" && byImei.get(id);
  if (!row) return false;
  const changes = { seen_ts: Math.max(row.seen_ts ?? 0, ts) };
  const column = REPORT_TIMES[report];
  if (column && ts >= (row[column] ?? 0)) Object.assign(changes, values, { [column]: ts });
  return patch(id, changes);
}

function applyTerminal({ id, what, body }) {
  if (what === "state" && body === null) return byImei.delete(id);
  if (!byImei.has(id)) return reloadLater() ?? false;
  if (what === "state") {
    const { name = null, state = null, latitude = null, longitude = null } = body;
    return patch(id, {
      name,
      state,
      latitude,
      longitude,
      seen_ts: Math.max(byImei.get(id).seen_ts ?? 0, toMs(body.last_seen) ?? 0),
    });
  }
  if (what !== "relations" || body === null) return false;
  if ((body.product_ids ?? []).includes(byImei.get(id).product_id) === false) reloadLater();
  return patch(id, {
    product_ids: body.product_ids?.length > 1 ? body.product_ids.join(" ") : null,
    site_id: body.site?.id ?? null,
    site: body.site?.name ?? null,
    end_customer_id: body.end_customer?.id ?? null,
    end_customer: body.end_customer?.name ?? null,
    distribution_partner_id: body.distribution_partner?.id ?? null,
    distribution_partner: body.distribution_partner?.name ?? null,
  });
}

function applyUsage(body) {
  const row = body && byBucket.get(body.bucket_id);
  if (!row || !body.entitlement_gb || body.used_gb === undefined) return reloadLater() ?? false;
  const used = Math.round((10000 * body.used_gb) / body.entitlement_gb) / 100;
  return patch(row.imei, { used_pct: used, overage_blocks: body.overage_blocks ?? null });
}

function forecastColumns(body) {
  return { forecast_status: body.status, exhausted_ts: toMs(body.exhausted_p50) };
}

function patch(imei, changes) {
  const row = byImei.get(imei);
  if (!row || Object.entries(changes).every(([name, value]) => row[name] === value)) return false;
  // Of two equal texts the one that is there already stays: it is shared, and the other needs memory of its own.
  const changed = makeRow(
    columns.map((name) => (name in changes && changes[name] !== row[name] ? changes[name] : row[name])),
  );
  byImei.set(imei, changed);
  if (changed.bucket_id) byBucket.set(changed.bucket_id, changed);
  return true;
}

/** The rows that the filters of an address leave. */
export function filterRows(rows, { q, state, customer, site, organization }) {
  const text = (q ?? "").trim().toLowerCase();
  return rows.filter(
    (row) =>
      (!state || row.state === state) &&
      (!customer ||
        row.end_customer_id === customer ||
        row.end_customer === customer ||
        row.distribution_partner_id === customer) &&
      (!organization || isBelow(row, organization)) &&
      (!site || row.site_id === site || row.site === site) &&
      (!text || searchText(row).includes(text)),
  );
}

const texts = new WeakMap();

function searchText(row) {
  if (!texts.has(row)) {
    const parts = [
      row.imei,
      row.name,
      row.product_id,
      row.product,
      row.product_ids,
      row.site_id,
      row.site,
      row.end_customer,
      row.distribution_partner,
    ];
    texts.set(row, parts.filter(Boolean).join("\n").toLowerCase());
  }
  return texts.get(row);
}

/** The names for a selection, sorted: `[id, name]` of each that a row has. */
export function choices(rows, idColumn, nameColumn) {
  const names = new Map();
  for (const row of rows) {
    if (row[idColumn] !== null) names.set(row[idColumn], row[nameColumn] ?? row[idColumn]);
  }
  return sortByText([...names], ([, name]) => name);
}
