/** Alerts: what is wrong, and what to do. Those of the last 24 hours count as open. */
import { now } from "./api.js";
import { More, usePages } from "./eventlist.js";
import { DAY, plural } from "./format.js";
import { html } from "./html.js";
import { address } from "./router.js";
import { Ago, Message, Page } from "./ui.js";

export function AlertsPage() {
  const { entries, next, error, ready, more } = usePages(
    "alerts",
    "alerts",
    100,
    (name, alert) => name === "alert" && { ...alert, id: `${alert.time} ${alert.kind} ${alert.message}` },
  );
  const groups = groupAlerts(entries);
  return html`<${Page} name="alerts" title="Alerts" ready=${ready}>
    ${error && html`<${Message} kind="bad">${error.message}<//>`}
    ${ready && !error && groups.length === 0 && html`<${Message}>No alerts: nothing that an operator should look at has happened.<//>`}
    <ul class="alerts">${groups.map((group) => html`<${Group} key=${`${group.kind} ${group.call}`}
        group=${group} />`)}</ul>
    <${More} next=${next} more=${more} count=${entries.length} />
  <//>`;
}

/** Alerts of one kind and call stand together, the newest sentence on top. */
function groupAlerts(alerts) {
  const groups = new Map();
  for (const alert of alerts) {
    const key = `${alert.kind} ${alert.call ?? ""}`;
    const group = groups.get(key);
    if (group) {
      group.count += 1;
      group.since = alert.time;
      group.advice ??= alert.advice;
    } else {
      groups.set(key, { ...alert, count: 1, since: alert.time });
    }
  }
  return [...groups.values()];
}

/** A sentence whose IMEIs lead to their terminals. */
const linkTerminals = (sentence) =>
  sentence
    .split(/\b(\d{15})\b/)
    .map((part, i) => (i % 2 ? html`<a href=${address("terminal", part)}>${part}</a>` : part));

function Group({ group }) {
  const open = now() - Date.parse(group.time) < DAY;
  return html`<li class="card" data-testid="alert" data-kind=${group.kind} data-open=${open}>
    <h2>${group.kind.replaceAll("_", " ")}${group.call && html` <a class="small" href="#/polling">${group.call}</a>`}
      <span class="small muted">${open ? "open" : "past"}</span></h2>
    <p><bdi>${linkTerminals(group.message)}</bdi></p>
    ${group.advice && html`<p class="advice"><b>What to do:</b> ${group.advice}</p>`}
    <p class="muted small">${group.count > 1 && html`first <${Ago}
        time=${group.since} />, `}${group.count > 1 ? "last " : ""}<${Ago}
        time=${group.time} />, ${plural(group.count, "time")}</p>
  </li>`;
}
