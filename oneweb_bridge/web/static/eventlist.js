/** Events as they were published, newest first: loaded page by page, new ones on top. */
import { get, withQuery } from "./api.js";
import { fieldValue, plural, shorten, UNKNOWN } from "./format.js";
import { html, useEffect, useMemo, useRef, useState } from "./html.js";
import { generation, subscribe } from "./live.js";
import { address } from "./router.js";
import { useStore } from "./store.js";
import { Ago, Problem } from "./ui.js";

const kindOf = (event) => event.type.split(".").at(-1);
const entityOf = (event) => event.type.split(".").at(-2);

/** A list that grows by itself while nobody scrolls keeps so many; above MAX_ENTRIES its end goes. */
const KEPT_ENTRIES = 500;
const MAX_ENTRIES = 1000;
const seqOf = (event) => Number(event.id.split(":").at(-1));

/**
 * Loads older entries of `path` when its end comes in view; `take` are those of the live stream. What is there stays
 * where a request fails, and the request is sent again once the bridge can be reached.
 */
export function usePages(path, member, limit, take, keyOf = ({ id }) => id) {
  const [state, setState] = useState({ path: null, entries: [], next: null, error: null });
  const count = useStore(generation);
  const wanted = useRef(path);
  const failed = useRef(null);
  wanted.current = path;
  const load = async (before) => {
    failed.current = null;
    try {
      const answer = await get(withQuery(path, { before, limit }));
      if (wanted.current !== path) return;
      setState((old) => {
        // The same page may have been asked for twice, or the end forgotten meanwhile.
        if (before && old.next !== before) return old;
        const entries = before ? [...old.entries, ...answer[member]] : answer[member];
        return { path, entries, next: answer.next, error: null };
      });
    } catch (error) {
      if (wanted.current !== path) return;
      failed.current = () => load(before);
      setState((old) => (old.path === path ? { ...old, error } : { path, entries: [], next: null, error }));
    }
  };
  useEffect(() => {
    load();
  }, [path, count]);
  useEffect(
    () =>
      subscribe((name, data) => {
        if (name === "connected") failed.current?.();
        const added = take(name, data);
        if (added)
          setState((old) =>
            old.entries.some((entry) => keyOf(entry) === keyOf(added))
              ? old
              : { ...old, entries: [added, ...old.entries] },
          );
      }),
    [path],
  );
  const forgetEnd = () =>
    setState((old) => {
      const kept = old.entries.slice(0, KEPT_ENTRIES);
      return { ...old, entries: kept, next: seqOf(kept.at(-1)) };
    });
  return { ...state, ready: state.path === path, more: () => state.next !== null && load(state.next), forgetEnd };
}

export function EventList({ filter, limit, fits = () => true, paused = false, onReady }) {
  const { entity, id, kind } = filter;
  const path = withQuery("events", { entity, id, kind });
  const concerns = (event) =>
    (!entity || entityOf(event) === entity) && (!id || event.subject === id) && (!kind || kindOf(event) === kind);
  const { entries, next, error, ready, more, forgetEnd } = usePages(
    path,
    "events",
    limit,
    (name, event) => name === "event" && concerns(event) && event,
  );
  useEffect(() => {
    // A page may stay open for weeks. Who has scrolled down keeps what is in view.
    if (entries.length > MAX_ENTRIES && !paused && scrollY < innerHeight) forgetEnd();
  }, [entries.length, paused]);
  const waiting = useWaiting(entries, paused, ready ? path : null);
  const shown = useMemo(() => entries.slice(waiting).filter(fits), [entries, waiting, fits]);
  useEffect(() => onReady?.(ready), [ready]);
  if (!ready) return html`<p class="muted">Loading …</p>`;
  if (error && entries.length === 0) return html`<${Problem} error=${error} />`;
  return html`<${Problem} error=${error} />
    ${waiting > 0 && html`<p class="muted" role="status">${plural(waiting, "new event")} while paused</p>`}
    ${shown.length === 0 && html`<p class="muted">${explainNone(next, kind || entries.length > 0 || (entity && !id))}</p>`}
    <ol class="events">${shown.map((event) => html`<${EventRow} key=${event.id} event=${event} named=${!id} />`)}</ol>
    <${More} next=${next} more=${more} count=${entries.length} />`;
}

/** How many entries came during a pause: those above the one that was the newest as it began, or was loaded in it. */
function useWaiting(entries, paused, path) {
  const start = useRef(null);
  if (!paused || path === null) start.current = null;
  else if (start.current?.path !== path) start.current = { path, id: entries[0]?.id };
  if (start.current === null) return 0;
  const { id } = start.current;
  return id === undefined ? entries.length : Math.max(0, entries.findIndex((entry) => entry.id === id));
}

function explainNone(next, filtered) {
  if (next !== null) return "No event of these so far.";
  return filtered ? "No event passes these filters." : "No events yet: they come with the first difference between two polls.";
}

/** The button that loads older entries, which also presses itself when it comes in view. */
export function More({ next, more, count }) {
  const button = useRef(null);
  useEffect(() => {
    if (!button.current) return undefined;
    const observer = new IntersectionObserver(
      (seen) => {
        if (seen.some((entry) => entry.isIntersecting)) more();
      },
      { rootMargin: "200px" },
    );
    observer.observe(button.current);
    return () => observer.disconnect();
  }, [count, next]);
  return next !== null && html`<button ref=${button} class="more" onClick=${more}>Older</button>`;
}

function EventRow({ event, named }) {
  const kind = kindOf(event);
  const entity = entityOf(event);
  const { record = {}, changed = {}, initial } = event.data;
  const page = { terminal: "terminal", product: "product" }[entity];
  const link = page ? address(page, event.subject) : address("organizations", "", { kind: entity, id: event.subject });
  return html`<li data-testid="event" data-id=${event.id} data-kind=${kind}>
    <${Ago} time=${event.ts ?? event.time} />
    ${named && html`<span class="muted">${entity}</span> <a
        href=${link}><bdi>${shorten(record.name ?? event.subject, 120)}</bdi></a>`}
    <span class="what">${kind}${initial ? " (first listing)" : ""}${kind === "changed" ? ": " : ""}
      ${Object.entries(changed).map(([name, { from, to }], i) => html`${i > 0 && ", "}<span
          key=${name}><b>${name}</b> <bdi>${worded(name, from)}</bdi> → <bdi>${worded(name, to)}</bdi></span>`)}</span>
  </li>`;
}

const worded = (name, value) => (value === null || value === undefined ? UNKNOWN : shorten(String(fieldValue(name, value)), 120));
