/** Small parts that several pages draw. */
import { get, now, reached, session, UNREACHED } from "./api.js";
import { fullTime, iso, relative, toMs, UNKNOWN, zone } from "./format.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { connection, generation, subscribe } from "./live.js";
import { route } from "./router.js";
import { createStore, useStore } from "./store.js";

/** The time, which moves every ten seconds. */
const clock = createStore(now());
setInterval(() => document.hidden || clock.set(now()), 10000);
document.addEventListener("visibilitychange", () => document.hidden || clock.set(now()));
export const useNow = () => useStore(clock);

/** What had the focus when another page was opened: from there it goes to the heading of that page. */
let origin = null;
let shown = route.get();
route.subscribe((next) => {
  const isOther = next.page !== shown.page || next.id !== shown.id;
  shown = next;
  if (isOther) origin = document.activeElement?.matches("input") ? null : document.activeElement;
});

function moveFocus(heading, ready) {
  if (!origin) return;
  const active = document.activeElement;
  if (active !== origin && active !== document.body) {
    origin = null;
    return;
  }
  heading.focus({ preventScroll: true });
  origin = ready ? null : heading;
}

/** Whether the bridge answers; while it does not, nothing that the page shows of it is known to hold. */
export function useReached() {
  const [line, known, isReached] = [useStore(connection), useStore(session), useStore(reached)];
  return isReached && !(line === "lost" && known?.signed_in);
}

/** Whether a page tells an error of a request: that the bridge cannot be reached stands on top of it already. */
export const isTold = (error) => Boolean(error) && error.status !== 0;

export const Problem = ({ error }) => isTold(error) && html`<${Message} kind="bad">${error.message}<//>`;

/** The frame of a page: `data-ready` says that its data are drawn, also where there are none. */
export function Page({ name, title, heading, ready, children }) {
  const head = useRef(null);
  const isReached = useReached();
  useEffect(() => moveFocus(head.current, ready));
  useEffect(() => {
    document.title = `${title} – OneWeb bridge`;
  }, [title]);
  return html`<main id="main" data-page=${name} data-ready=${ready ? "" : undefined} aria-busy=${!ready} tabindex="-1">
    <div class="heading"><h1 ref=${head} tabindex="-1">${title}</h1>${heading}</div>
    ${!isReached && html`<${Message} kind="bad">${UNREACHED}<//>`}
    ${children}
  </main>`;
}

/** How long ago, with the full time as title. A stale value is grey and has a clock sign. */
export function Ago({ time, stale = false }) {
  useNow();
  useStore(zone);
  return drawAgo(time, stale);
}

/** The same without a clock of its own, for who draws many of them and draws them anew. */
export function drawAgo(time, stale = false) {
  const ms = toMs(time);
  if (ms === null) return html`<span class="unknown">${UNKNOWN}</span>`;
  return html`<time class=${stale ? "stale" : ""} datetime=${iso(ms)} title=${fullTime(ms)}
    >${relative(ms, now())}${stale && html`<${StaleSign} />`}</time>`;
}

/** True from the frame on that follows the first one with what is `there`; what can wait is drawn then. */
export function useLater(there) {
  const [later, setLater] = useState(false);
  useEffect(() => {
    if (!there) return undefined;
    const timer = setTimeout(() => setLater(true));
    return () => clearTimeout(timer);
  }, [there]);
  return later;
}

export const StaleSign = () => html`<span class="stale-sign" role="img" aria-label="stale"> ◷</span>`;

/** The state of a terminal or a product: a dot by its colour and form, and the word. */
export function State({ state }) {
  const known = state === null || state === undefined ? "unknown" : state;
  return html`<span class="state" data-state=${known}><i aria-hidden="true"></i>${state ?? UNKNOWN}</span>`;
}

/** How much of an allowance is used: a bar that is full at 100 %, and the number. */
export function UsageBar({ percent, blocks, unlimited, stale = false }) {
  if (unlimited) return html`<span class="usage"><span class="muted">unlimited</span></span>`;
  if (percent === null || percent === undefined) return html`<span class="unknown">${UNKNOWN}</span>`;
  const level = percent >= 100 ? "over" : percent >= 80 ? "high" : "";
  return html`<span class="usage" data-level=${level}>
    <span class="bar" aria-hidden="true"><i style=${{ width: `${Math.min(percent, 100)}%` }}></i></span>
    <span class=${stale ? "stale" : ""}>${Math.round(percent)}${"\u202f"}%${stale && html`<${StaleSign} />`}</span>
    ${blocks > 0 && html`<span class="blocks" title=${`${blocks} overage block${blocks === 1 ? "" : "s"}`}>+${blocks}</span>`}
  </span>`;
}

export const Message = ({ children, kind = "note" }) => html`<p class="message" data-kind=${kind}>${children}</p>`;

/**
 * Data of the bridge: loaded once for each address, again after a `reset`, and a second after a message of the live
 * stream that `concerns` them. What is there stays while it is loaded again.
 */
export function useResource(path, concerns = null) {
  const [state, setState] = useState({ path: null, data: null, error: null });
  const count = useStore(generation);
  const load = useRef(null);
  // The caller's function of this render knows what was loaded; that of the first one does not.
  const latest = useRef(concerns);
  latest.current = concerns;
  useEffect(() => {
    if (path === null) return undefined;
    const controller = new AbortController();
    load.current = async () => {
      try {
        setState({ path, data: await get(path, controller.signal), error: null });
      } catch (error) {
        if (error.name !== "AbortError")
          setState((old) => ({ path, data: old.path === path ? old.data : null, error }));
      }
    };
    load.current();
    return () => controller.abort();
  }, [path, count]);
  useEffect(() => {
    let timer = 0;
    const stop = subscribe((name, data) => {
      const again = name === "connected" || latest.current?.(name, data);
      if (again && !timer)
        timer = setTimeout(() => {
          timer = 0;
          load.current?.();
        }, 1000);
    });
    return () => {
      stop();
      clearTimeout(timer);
    };
  }, [path]);
  const current = state.path === path;
  return { data: state.data, error: current ? state.error : null, ready: current, reload: () => load.current?.() };
}

/** Writes a file from text, in the page. */
export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** A cell of a CSV file: quoted where it must be, and never a formula for a spreadsheet. */
export function csvCell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (/^[=+\-@\t\r]/.test(text) && !isNumber(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const isNumber = (text) => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
