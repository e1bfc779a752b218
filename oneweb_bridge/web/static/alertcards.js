/** Alerts as cards: one for each kind, call and subject, and whether what it tells of still holds. */
import { get, now } from "./api.js";
import { calls, loadCalls } from "./calls.js";
import { DAY } from "./format.js";
import { generation, subscribe } from "./live.js";
import { createStore } from "./store.js";

/** What an alert of a kind is about, by its sentence, where one call or the bridge may have several at a time. */
const SUBJECTS = {
  allowance_exhausts: /^(.+?): the allowance/,
  value_unreadable: /^(\S+) could not be read/,
  topics_refused: /all messages on (\S+)/,
  topics_accepted: /messages on (\S+) again/,
  row_set_aside: /^row \d+ on (\S+)/,
  topic_owed: /^(\S+) could not be published/,
  message_too_large: /^(\S+) cannot be published/,
  answer_unexpected: /^(?:as expected again; it was: )?(.+)$/s,
};
/** That a class of topics is accepted again is told on the card of its refusal. */
const SAME_CARD = { topics_accepted: "topics_refused" };
/** Kinds of which the state of the call says whether they hold. */
const OF_CALL = new Set(
  "set_aside value_unreadable answer_unexpected unauthorized bad_answer time_ambiguous".split(" "),
);
const NUMBERS = /\d+/g;

function subjectOf({ kind, message }) {
  const subject = message.match(SUBJECTS[kind])?.[1] ?? "";
  return kind === "answer_unexpected" ? subject.replace(NUMBERS, "0") : subject;
}

/** Cards, that of the newest alert first: the newest alert with `count`, `since`, `sentences` and `subject`. */
export function makeCards(alerts) {
  const cards = new Map();
  for (const alert of alerts) {
    const subject = SUBJECTS[alert.kind] ? subjectOf(alert) : "";
    const key = [SAME_CARD[alert.kind] ?? alert.kind, alert.call ?? "", subject].join(" ");
    const card = cards.get(key);
    if (card) {
      card.count += 1;
      card.sentences.add(alert.message);
      card.since = alert.time;
      card.advice ??= alert.advice;
    } else cards.set(key, { ...alert, key, subject, count: 1, since: alert.time, sentences: new Set([alert.message]) });
  }
  return [...cards.values()];
}

/** Whether what the card tells of holds: true or false by the present state, null where nobody can know. */
export function isOpen(card, polled) {
  const { kind, call, message } = card;
  if (kind === "allowance_exhausts") return runsOut(message);
  if (kind === "answer_unexpected" && message.startsWith("as expected again")) return false;
  if (kind === "topics_refused" || kind === "topics_accepted") return kind === "topics_refused";
  if (!polled || polled.error) return null;
  if (kind === "removal_held" || kind === "values_held") return polled.held.some((held) => held.call === call);
  if (kind === "intervals_stretched")
    return polled.calls.some(({ enabled, interval, effective_interval: effective }) => enabled && effective > interval);
  const alerts = OF_CALL.has(kind) && polled.calls.find((state) => state.call === call)?.alerts;
  if (!alerts) return null;
  return alerts.some((alert) => alert.kind === kind && (kind !== "value_unreadable" || alert.about === card.subject));
}

/** By the newest alert of an allowance: it lasts after all, or the cycle of which it speaks goes on, or is over. */
function runsOut(message) {
  if (message.includes("will probably last")) return false;
  const end = Date.parse(message.match(/cycle ends on (\S+?Z)/)?.[1] ?? "");
  return Number.isNaN(end) ? null : end > now();
}

/** Whether a card is counted as open: where nobody can know whether it holds, for 24 hours. */
export const isCounted = (card, polled) => isOpen(card, polled) ?? now() - Date.parse(card.time) < DAY;

/** How many cards are counted as open; 0 until it is known. */
export const openCards = createStore(0);

const NEWEST = 200;
let newest = [];

function count() {
  const polled = calls.get();
  if (polled) openCards.set(makeCards(newest).filter((card) => isCounted(card, polled)).length);
}

async function load() {
  loadCalls();
  try {
    newest = (await get(`alerts?limit=${NEWEST}`)).alerts;
    count();
  } catch {
    // It comes again with the next connection.
  }
}

let timer = 0;

/** Of many alerts at once the last one counts. */
function loadLater() {
  clearTimeout(timer);
  timer = setTimeout(load, 500);
}

load();
calls.subscribe(count);
generation.subscribe(loadLater);
subscribe((name) => {
  if (name === "alert" || name === "connected") loadLater();
});
