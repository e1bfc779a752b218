/**
 * The live stream: one for the page, closed while the page is hidden, continued behind the last message.
 *
 * It is read with fetch and not with EventSource, which hides the comments: by them the page notices within
 * SILENCE_MS that a connection is dead, and the status of a refusal says what to do.
 */
import { API, loadSession, session } from "./api.js";
import { createStore } from "./store.js";

const RETRY_MS = 2000;
const SILENCE_MS = 40000;

/** `live`, `lost`, or `connecting` until the first answer. */
export const connection = createStore("connecting");
/** Grows whenever data must be loaded anew: after a `reset`. */
export const generation = createStore(0);

const listeners = new Set();
let controller = null;
let timer = 0;
let lastId = null;
let wanted = false;

/** Calls back with the name of the event and its data; `connected` is the page's own, after each connect. */
export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Opens the stream where it is not open; with an id behind which it has been already, it is opened anew there. */
export function start(since = null) {
  if (since !== null && (lastId === null || isBehind(lastId, since))) {
    lastId = since;
    controller?.abort();
    controller = null;
  }
  wanted = true;
  if (!controller && !document.hidden) open();
}

export function stop() {
  wanted = false;
  close();
}

// A snapshot at `since` misses what was told after it: only then the stream has to go back.
function isBehind(last, since) {
  const [journal, seq] = since.split(":");
  const [lastJournal, lastSeq] = last.split(":");
  return journal !== lastJournal || Number(lastSeq) > Number(seq);
}

function close() {
  clearTimeout(timer);
  controller?.abort();
  controller = null;
}

async function open() {
  clearTimeout(timer);
  const mine = new AbortController();
  controller = mine;
  try {
    const address = `${API}live` + (lastId === null ? "" : `?since=${encodeURIComponent(lastId)}`);
    const answer = await fetch(address, { headers: { Accept: "text/event-stream" }, signal: mine.signal });
    if (answer.status === 401) {
      // What is not open any more must not keep the next sign-in from opening it.
      if (controller === mine) controller = null;
      return session.set((old) => ({ ...old, signed_in: false }));
    }
    if (answer.ok) await read(answer, mine);
  } catch {
    // Told below: whatever ended the stream, it is tried again.
  }
  if (controller !== mine) return undefined;
  controller = null;
  connection.set("lost");
  if (wanted && !document.hidden) timer = setTimeout(retry, RETRY_MS);
  return undefined;
}

async function retry() {
  try {
    await loadSession();
  } catch {
    timer = setTimeout(retry, RETRY_MS);
    return;
  }
  if (wanted && !controller && session.get().signed_in) open();
}

async function read(answer, mine) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  connection.set("live");
  tell("connected", null);
  let text = "";
  for (;;) {
    const watchdog = setTimeout(() => mine.abort(), SILENCE_MS);
    const { done, value } = await reader.read().finally(() => clearTimeout(watchdog));
    if (done || controller !== mine) return;
    const messages = (text + value.replaceAll("\r", "")).split("\n\n");
    text = messages.pop();
    messages.forEach(handle);
  }
}

function handle(message) {
  let name = "message";
  let data = "";
  for (const line of message.split("\n")) {
    const [, field, value] = line.match(/^(\w+): ?(.*)$/) ?? [];
    if (field === "event") name = value;
    else if (field === "data") data += value;
    else if (field === "id") lastId = value;
  }
  if (!data) return;
  tell(name, JSON.parse(data));
  if (name === "reset") generation.set((count) => count + 1);
}

function tell(name, data) {
  for (const listener of [...listeners]) listener(name, data);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) close();
  else if (wanted && !controller) open();
});
addEventListener("offline", () => {
  if (!wanted) return;
  close();
  connection.set("lost");
});
addEventListener("online", () => {
  if (wanted && !controller && !document.hidden) open();
});
