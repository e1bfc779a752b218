/** The calls of the polling manager, loaded once and kept true by the live stream. */
import { get, now } from "./api.js";
import { generation, subscribe } from "./live.js";
import { createStore } from "./store.js";

/** As `GET calls`, with `error`; null until it is known. */
export const calls = createStore(null);

/** Until the stream has said what a result said: what was on its way before the result is older, and not shown. */
const UNCONFIRMED_MS = 2000;
const unconfirmed = new Map();

let loading = null;
let timer = 0;

export function loadCalls() {
  loading ??= load();
  return loading;
}

async function load() {
  try {
    calls.set({ ...(await get("calls")), error: null });
  } catch (error) {
    calls.set((old) => ({ calls: [], held: [], ...old, error }));
  }
}

/** Sources, costs and what is held are not in a call's state: they are asked for after something changed. */
export function reloadCalls() {
  if (loading && !timer)
    timer = setTimeout(() => {
      timer = 0;
      loading = load();
    }, 500);
}

/** Whether usage was last read longer than three intervals of its call ago; false while that is not known. */
export function isUsageStale() {
  const call = calls.get()?.calls.find((state) => state.call === "usage_consumption");
  return call !== undefined && now() - Date.parse(call.last_success) > 3000 * call.effective_interval;
}

/** Takes over the state that the result of a command has. */
export function applyResult(state) {
  unconfirmed.set(state.call, { state, until: Date.now() + UNCONFIRMED_MS });
  applyCallState(state.call, state);
}

function isOlder(state) {
  const known = unconfirmed.get(state.call);
  if (!known) return false;
  const differs = ["enabled", "interval", "status", "last_poll"].some((name) => known.state[name] !== state[name]);
  if (differs && Date.now() < known.until) return true;
  unconfirmed.delete(state.call);
  return false;
}

function applyCallState(name, state) {
  calls.set(
    (old) => old && { ...old, calls: old.calls.map((call) => (call.call === name ? merge(call, state) : call)) },
  );
}

// A member that is absent in the state is not known any more; what only `GET calls` says stays.
function merge(old, state) {
  const { effective_interval, requests_per_hour, source, lateness, about, alerts } = old;
  return { effective_interval, requests_per_hour, source, lateness, about, alerts, ...state };
}

generation.subscribe(reloadCalls);
subscribe((name, data) => {
  if (name === "connected") reloadCalls();
  if (name === "state" && data.call && data.body && isOlder(data.body)) {
    // Where it was newer after all, as where the stream was quicker than the result, this shows it.
    setTimeout(reloadCalls, UNCONFIRMED_MS);
  } else if (name === "state" && data.call) {
    const old = calls.get()?.calls.find((call) => call.call === data.call);
    if (data.body) applyCallState(data.call, data.body);
    if (
      old &&
      (old.interval !== data.body?.interval ||
        old.enabled !== data.body?.enabled ||
        (old.alerts.length > 0 && data.body?.status !== "polling") ||
        data.body?.status === "held" ||
        old.status === "held")
    )
      reloadCalls();
  }
  if (name === "alert" && data.call) reloadCalls();
});
