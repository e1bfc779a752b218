/** The state of the bridge, as the top bar and some pages show it. */
import { get, session } from "./api.js";
import { subscribe } from "./live.js";
import { createStore } from "./store.js";

/** `info`, `ready` and `alerts` of the last 24 hours; null until it is known. */
export const bridge = createStore(null);
/** When the last event or sample that came was, in milliseconds. */
export const lastEvent = createStore(null);

subscribe((name, data) => {
  if (name === "connected") load();
  if (name === "bridge") bridge.set(data);
  if (name === "alert") load();
  if (name === "event" || name === "sample") lastEvent.set((old) => Math.max(old ?? 0, data.ts));
});

session.subscribe((known) => known?.signed_in && !bridge.get() && load());

async function load() {
  try {
    bridge.set(await get("bridge"));
    const { events } = lastEvent.get() === null ? await get("events?limit=1") : { events: [] };
    if (events.length) lastEvent.set((old) => Math.max(old ?? 0, events[0].ts));
  } catch {
    // It comes again with the next connection, or when it changes.
  }
}
