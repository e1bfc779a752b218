/** Alerts: what is wrong, and what to do. Those of the last 24 hours count as open. */
import { now } from "./api.js";
import { More, usePages } from "./eventlist.js";
import { DAY, dayAndTime, describeField, fullTime, plural, zone } from "./format.js";
import { html } from "./html.js";
import { address } from "./router.js";
import { useStore } from "./store.js";
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

/** Alerts of one kind and call stand together, the newest sentence on top, each sentence once. */
function groupAlerts(alerts) {
  const groups = new Map();
  for (const alert of alerts) {
    const key = `${alert.kind} ${alert.call ?? ""}`;
    const group = groups.get(key);
    if (group) {
      group.count += 1;
      group.sentences.add(alert.message);
      group.since = alert.time;
      group.advice ??= alert.advice;
    } else {
      groups.set(key, { ...alert, count: 1, since: alert.time, sentences: new Set([alert.message]) });
    }
  }
  return [...groups.values()];
}

// A product's id has a digit, which "product records" has not.
const PARTS = /\b(\d{15})\b|\b(product )((?=[^\s,()]*\d)[^\s,()]+)|(\d{4}-\d\d-\d\dT\d\d:\d\d:[\d.]+Z)/g;

/** A sentence whose terminals and products are links, and whose times are written as everywhere on the page. */
function drawSentence(sentence) {
  const parts = [];
  let end = 0;
  for (const match of sentence.matchAll(PARTS)) {
    const [text, imei, before = "", product, time] = match;
    const link = imei ? address("terminal", imei) : address("product", product);
    parts.push(sentence.slice(end, match.index) + before);
    parts.push(
      time
        ? html`<time datetime=${time} title=${fullTime(Date.parse(time))}>${dayAndTime(Date.parse(time))}</time>`
        : html`<a href=${link}>${imei ?? product}</a>`,
    );
    end = match.index + text.length;
  }
  return [...parts, sentence.slice(end)];
}

/** Alerts about which something can be done on a page of the console: a link to it. */
const DEEDS = {
  removal_held: ["#/polling", "Release in the Polling Manager"],
  values_held: ["#/polling", "Release in the Polling Manager"],
  unauthorized: ["#/setup", "Set-up"],
};

const Deed = ({ kind }) => DEEDS[kind] && html` <a href=${DEEDS[kind][0]}>${DEEDS[kind][1]}</a>`;

function Group({ group }) {
  useStore(zone);
  const others = [...group.sentences].slice(1);
  const open = now() - Date.parse(group.time) < DAY;
  return html`<li class="card" data-testid="alert" data-kind=${group.kind} data-open=${open}>
    <h2>${describeField(group.kind).label}${group.call && html` <a class="small" href="#/polling">${group.call}</a>`}
      <span class="small muted">${open ? "open" : "past"}</span></h2>
    <p><bdi>${drawSentence(group.message)}</bdi></p>
    ${group.advice && html`<p class="advice"><b>What to do:</b> ${group.advice}.<${Deed} kind=${group.kind} /></p>`}
    ${others.length > 0 && html`<details><summary>${plural(others.length, "other sentence")} of this kind</summary>
      <ul>${others.map((sentence) => html`<li key=${sentence}><bdi>${drawSentence(sentence)}</bdi></li>`)}</ul></details>`}
    <p class="muted small">${group.count > 1 && html`first <${Ago}
        time=${group.since} />, `}${group.count > 1 ? "last " : ""}<${Ago}
        time=${group.time} />, ${plural(group.count, "time")}</p>
  </li>`;
}
