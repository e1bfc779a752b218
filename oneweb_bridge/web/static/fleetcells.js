/** The columns of the fleet's table, and how their cells are drawn. */
import { now } from "./api.js";
import { calls, isUsageStale } from "./calls.js";
import { day, fixed, fullTime, shorten, UNKNOWN } from "./format.js";
import { html } from "./html.js";
import { address } from "./router.js";
import { drawAgo, StaleSign, State, UsageBar } from "./ui.js";

/** Columns that can be shown: name of the fleet's column, head, width as in a grid, and how a cell is drawn. */
export const COLUMNS = [
  { name: "name", label: "Name", width: "minmax(11rem, 2fr)", cell: (row) => html`<${NameCell} row=${row} />` },
  {
    name: "state",
    label: "State",
    width: "minmax(5.5rem, .7fr)",
    cell: (row) => html`<${State} state=${row.state} />`,
  },
  {
    name: "sinr_db",
    label: "SINR dB",
    about: "signal to interference and noise: the higher, the better",
    width: "minmax(5.5rem, .6fr)",
    number: true,
    cell: (row) => measured(row.sinr_db, 1, row, "sinr_ts"),
  },
  {
    name: "link_availability_pct",
    label: "Avail. %",
    about: "link availability: the share of the last period in which the link was up",
    width: "minmax(5.5rem, .6fr)",
    number: true,
    cell: (row) => measured(row.link_availability_pct, 2, row, "availability_ts"),
  },
  {
    name: "used_pct",
    label: "Usage of allowance",
    about: "how much of the bill cycle's allowance is used, and overage blocks",
    width: "minmax(11.5rem, 1.2fr)",
    cell: (row) =>
      html`<${UsageBar} percent=${row.used_pct} blocks=${row.overage_blocks}
          unlimited=${row.forecast_status === "unlimited"} stale=${isUsageStale()} />`,
  },
  {
    name: "exhausted_ts",
    label: "Exhausted",
    about: "when the allowance will probably be used up, by the forecast",
    width: "minmax(6.5rem, .7fr)",
    cell: (row) => html`<${Exhausted} row=${row} />`,
  },
  {
    name: "seen_ts",
    label: "Seen",
    about: "when data of it last came, also those that say that it is offline",
    width: "minmax(6.5rem, .7fr)",
    cell: (row) => drawAgo(row.seen_ts),
  },
  { name: "imei", label: "IMEI", width: "minmax(9.5rem, .8fr)", optional: true, cell: (row) => row.imei },
  {
    name: "end_customer",
    label: "Customer",
    width: "minmax(9rem, 1fr)",
    optional: true,
    cell: (row) => row.end_customer ?? UNKNOWN,
  },
  {
    name: "site",
    label: "Site",
    width: "minmax(9rem, 1fr)",
    optional: true,
    cell: (row) => row.site ?? row.site_id ?? UNKNOWN,
  },
  {
    name: "distribution_partner",
    label: "Partner",
    width: "minmax(9rem, 1fr)",
    optional: true,
    cell: (row) => row.distribution_partner ?? UNKNOWN,
  },
  {
    name: "product",
    label: "Product",
    width: "minmax(9rem, 1fr)",
    optional: true,
    cell: (row) => row.product ?? row.product_id ?? UNKNOWN,
  },
];
const CALL_OF = { sinr_ts: "ut_signal_quality", availability_ts: "ut_link_availability" };

const NameCell = ({
  row,
}) => html`<a href=${address("terminal", row.imei)} title=${row.imei}><bdi>${shorten(row.name ?? row.imei)}</bdi></a>
  <span class="below"><bdi>${shorten(row.end_customer ?? row.site ?? row.imei)}</bdi></span>`;

// Reports have a period of their own, which is not known here; where a call is polled more often, this is assumed.
const PERIOD_S = 300;
const maxAge = (call) => 1000 * (3 * Math.max(call.effective_interval, PERIOD_S) + call.lateness);

/** A value that is grey when it is older than three intervals of its call and the lateness of its report. */
function measured(value, digits, row, timeColumn) {
  const time = row[timeColumn];
  if (value === null) return UNKNOWN;
  const call = calls.get()?.calls.find(({ call: name }) => name === CALL_OF[timeColumn]);
  const stale = call?.lateness !== undefined && now() - time > maxAge(call);
  return html`<span class=${stale ? "stale" : ""}
      title=${time ? fullTime(time) : undefined}>${fixed(value, digits)}${stale && html`<${StaleSign} />`}</span>`;
}

/** Whether an allowance is used up; since when is not known where there is no forecast. */
export const isExhausted = (row) => (row.exhausted_ts === null ? row.used_pct >= 100 : row.exhausted_ts <= now());

const WHY_NEVER = {
  not_enough_data: "not enough data for a forecast",
  unlimited: "unlimited",
  ok: "it lasts until the end of the bill cycle",
};

function Exhausted({ row }) {
  const product = row.product ?? row.product_id;
  const which = product ? `${shorten(product)}: ` : "";
  if (isExhausted(row)) {
    const since = row.exhausted_ts ? ` since ${fullTime(row.exhausted_ts)}` : "";
    return html`<span class="bad" title=${`${which}exhausted${since}`}>exhausted</span>`;
  }
  if (row.exhausted_ts === null) {
    return html`<span class="unknown" title=${WHY_NEVER[row.forecast_status]}>${UNKNOWN}</span>`;
  }
  return html`<time datetime=${new Date(row.exhausted_ts).toISOString()}
      title=${`${which}probably ${fullTime(row.exhausted_ts)}`}>${day(row.exhausted_ts)}</time>`;
}
