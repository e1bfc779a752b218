/** Alerts: what is wrong, and what to do; open is what still holds as far as the bridge tells. */
import { isCounted, isOpen, makeCards } from "./alertcards.js";
import { calls, loadCalls } from "./calls.js";
import { More, usePages } from "./eventlist.js";
import { dayAndTime, describeField, fullTime, plural, zone } from "./format.js";
import { html, useEffect } from "./html.js";
import { address } from "./router.js";
import { useStore } from "./store.js";
import { Ago, Message, Page, Problem } from "./ui.js";

export function AlertsPage() {
  const polled = useStore(calls);
  useEffect(() => {
    loadCalls();
  }, []);
  const { entries, next, error, ready, more } = usePages(
    "alerts",
    "alerts",
    100,
    (name, alert) => name === "alert" && alert,
    ({ time, kind, message }) => `${time} ${kind} ${message}`,
  );
  const cards = makeCards(entries).map((card) => ({ ...card, isOpen: isOpen(card, polled) }));
  // What the top bar counts stands first; the others are in the order of their time.
  const [first, others] = [true, false].map((counted) => cards.filter((card) => isCounted(card, polled) === counted));
  const ordered = [...first, ...others];
  return html`<${Page} name="alerts" title="Alerts" ready=${ready && polled !== null}>
    <${Problem} error=${error} />
    ${ready && !error && cards.length === 0 && html`<${Message}>No alerts: nothing that an operator should look at has happened.<//>`}
    <ul class="alerts">${ordered.map((card) => html`<${Card} key=${card.key} card=${card} />`)}</ul>
    <${More} next=${next} more=${more} count=${entries.length} />
  <//>`;
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

function Card({ card }) {
  useStore(zone);
  const others = [...card.sentences].slice(1);
  return html`<li class="card" data-testid="alert" data-kind=${card.kind} data-open=${card.isOpen === true}>
    <h2>${describeField(card.kind).label}${card.call && html` <a class="small" href="#/polling">${card.call}</a>`}
      <span class="small muted">${card.isOpen === null ? html`<${Ago} time=${card.time} />` : card.isOpen ? "open" : "over"}</span></h2>
    <p><bdi>${drawSentence(card.message)}</bdi></p>
    ${card.isOpen !== false && card.advice && html`<p class="advice"><b>What to do:</b> ${card.advice}.<${Deed} kind=${card.kind} /></p>`}
    ${others.length > 0 && html`<details><summary>${plural(others.length, "earlier sentence")}</summary>
      <ul>${others.map((sentence) => html`<li key=${sentence}><bdi>${drawSentence(sentence)}</bdi></li>`)}</ul></details>`}
    <p class="muted small">${card.count > 1 && html`first <${Ago}
        time=${card.since} />, `}${card.count > 1 ? "last " : ""}<${Ago}
        time=${card.time} />, ${plural(card.count, "time")}</p>
  </li>`;
}
