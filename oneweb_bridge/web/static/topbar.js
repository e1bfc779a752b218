/** The top bar: state of the bridge, search over all, pages, time zone, sign-out. */
import { loadSession, request, session } from "./api.js";
import { bridge, lastEvent } from "./bridge.js";
import { clockTime, fullTime, number, zone } from "./format.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { connection } from "./live.js";
import { address, go, route, setQuery } from "./router.js";
import { readSetting, useStore, writeSetting } from "./store.js";
import { useReached } from "./ui.js";

const LINKS = [
  ["fleet", "Fleet"],
  ["organizations", "Organizations"],
  ["map", "Map"],
  ["polling", "Polling Manager"],
  ["events", "Events"],
  ["alerts", "Alerts"],
  ["setup", "Set-up"],
];

export function TopBar() {
  const known = useStore(session);
  const bar = useRef(null);
  useEffect(() => {
    // What sticks below the bar has to know where it ends: on narrow screens it has several lines.
    const observer = new ResizeObserver(() =>
      document.documentElement.style.setProperty("--top", `${bar.current.offsetHeight}px`),
    );
    observer.observe(bar.current);
    return () => observer.disconnect();
  }, []);
  return html`<header class="top" ref=${bar}>
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <div class="top-row">
      <a class="brand" href="#/" aria-label="OneWeb bridge"><${Logo} /><span>OneWeb bridge</span></a>
      ${known.signed_in && html`<${Search} />`}
      <${Status} />
    </div>
    ${known.signed_in && html`<${Navigation} />`}
  </header>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

const Logo = () => html`<svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
  <path d="M7 25a13 13 0 0 1 0-18M12 20.5a6.5 6.5 0 0 1 0-9M25 7a13 13 0 0 1 0 18M20 11.5a6.5 6.5 0 0 1 0 9" />
  <circle cx="16" cy="16" r="2.6" />
</svg>`;

function Navigation() {
  const { page } = useStore(route);
  const open = useOpenAlerts();
  return html`<nav aria-label="Pages">
    ${LINKS.map(
      ([name, label]) => html`<a key=${name} href=${address(name)}
        aria-current=${page === name ? "page" : undefined}>${label}</a>
      ${name === "alerts" && open > 0 && html`<a class="badge" href="#/alerts"
          aria-label=${`${open} open`}>${open}</a>`}`,
    )}
  </nav>`;
}

/** How many alerts are open. What counts them is loaded behind the page, which does not wait for it. */
function useOpenAlerts() {
  const [count, setCount] = useState(0);
  useEffect(() => {
    let stop = () => null;
    const timer = setTimeout(
      () =>
        import("./alertcards.js").then(
          ({ openCards }) => {
            setCount(openCards.get());
            stop = openCards.subscribe(setCount);
          },
          () => null,
        ),
      200,
    );
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, []);
  return count;
}

/** Filters the fleet or the map; typed on another page it leads to the fleet. */
function Search() {
  const { page, query } = useStore(route);
  const field = useRef(null);
  const filters = page === "fleet" || page === "map";
  useEffect(() => {
    const focus = (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName))
        return;
      event.preventDefault();
      field.current.focus();
    };
    addEventListener("keydown", focus);
    return () => removeEventListener("keydown", focus);
  }, []);
  const search = (text) => (filters ? setQuery({ q: text }) : go(address("fleet", "", { q: text })));
  return html`<input ref=${field} class="search" type="search" aria-label="Search"
      placeholder="IMEI, name, product, site   ( / )"
    autocomplete="off" spellcheck="false" value=${filters ? (query.q ?? "") : ""}
        onInput=${(event) => search(event.target.value)} />`;
}

function Status() {
  const known = useStore(session);
  const state = useStore(bridge);
  const line = useStore(connection);
  const shownZone = useStore(zone);
  const event = useStore(lastEvent);
  const isReached = useReached();
  const api = isReached ? state?.info?.api : null;
  const ready = isReached ? state?.ready : null;
  const backlog = isReached ? state?.info?.journal?.backlog : null;
  const unknown = isReached ? undefined : "not known while the bridge cannot be reached";
  return html`<div class="status">
    ${
      known.signed_in &&
      html`
      <${Light} name="API" good=${api ? api.state === "ok" : null} title=${api ? (api.error ?? api.state) : unknown} />
      <${Light} name="broker" good=${ready?.broker ?? null} title=${unknown} />
      <span class="fact" data-none=${backlog ? undefined : ""} title="rows of the journal that the broker has not acknowledged yet">backlog ${number(backlog)}</span>
      ${event && html`<span class="fact" title=${`newest event or sample: ${fullTime(event)}`}><span class="words">last event </span>${clockTime(event)}</span>`}
      <span class="light" role="status" data-testid="connection" data-state=${line === "live" ? "live" : "lost"} data-good=${line === "live"}><i
          aria-hidden="true"></i>${line}</span>`
    }
    <button class="quiet" title="Times in UTC or in the time of this browser"
      onClick=${() => zone.set(shownZone === "UTC" ? "local" : "UTC")}>${shownZone === "UTC" ? "UTC" : "Local time"}</button>
    ${known.signed_in && readSetting("token", false) && html`<${SignOut} />`}
  </div>`;
}

const Light = ({ name, good, title }) => html`<span class="light" data-good=${good} title=${title}
  ><i aria-hidden="true"></i>${name}<span
      class="hidden"> ${good === null ? "unknown" : good ? "ok" : "not ok"}</span></span>`;

function SignOut() {
  const signOut = async () => {
    await request("session", { method: "DELETE" }).catch(() => null);
    writeSetting("token", false);
    await loadSession().catch(() => null);
  };
  return html`<button class="quiet" onClick=${signOut}>Sign out</button>`;
}
