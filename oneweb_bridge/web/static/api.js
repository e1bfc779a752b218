/** Requests to the bridge. All addresses are relative, so that the page works below any base path. */
import { createStore } from "./store.js";

export const API = "api/v1/";
export const UNREACHED = "The bridge cannot be reached; the page goes on by itself when it is there again.";

/** `signed_in`, `read_only`, `version`, `instance`; null until the bridge has answered for the first time. */
export const session = createStore(null);

/** Whether the last request had an answer. */
export const reached = createStore(true);

/** How far the bridge's clock is ahead of this browser's, in milliseconds. */
let clockOffset = 0;
export const now = () => Date.now() + clockOffset;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Sends a request; throws ApiError with the bridge's own sentence, or with status 0 where it cannot be reached. */
export async function request(path, { method = "GET", body, signal } = {}) {
  const headers = { "X-Oneweb-Console": "1" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(API + path, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    reached.set(false);
    throw new ApiError(0, UNREACHED);
  }
  reached.set(true);
  noteClock(answer.headers.get("Date"));
  const text = await answer.text();
  const data = parse(text);
  if (answer.status === 401 && path !== "session") session.set((old) => ({ ...old, signed_in: false }));
  if (!answer.ok) throw new ApiError(answer.status, data?.error ?? `The bridge answered ${answer.status}.`);
  return data;
}

export const get = (path, signal) => request(path, { signal });
export const post = (path, body = {}) => request(path, { method: "POST", body });

/** Asks who this browser is; where nothing answers, the caller tries again. */
export async function loadSession() {
  session.set(await get("session"));
}

function parse(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

// The header has whole seconds: only a clock that is really wrong is corrected.
function noteClock(date) {
  const offset = Date.parse(date ?? "") + 500 - Date.now();
  clockOffset = Math.abs(offset) > 5000 ? offset : 0;
}

/** An address below the API with the parameters that are set, added to those that it has. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return text ? path + (path.includes("?") ? "&" : "?") + text : path;
}
