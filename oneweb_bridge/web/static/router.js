/** Addresses behind `#`: `#/terminal/{id}?span=7d`. They are the state of the page, so that a view can be sent. */
import { createStore } from "./store.js";

/** `page`, `id` and `query` (an object of texts) of the address. */
export const route = createStore(parseHash(location.hash));

addEventListener("hashchange", () => route.set(parseHash(location.hash)));

function parseHash(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [page, ...id] = path.split("/");
  return { page: page || "fleet", id: decode(id.join("/")), query: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a page; parameters that are empty are left out. */
export function address(page, id = "", query = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") parameters.set(name, value);
  }
  const path = page === "fleet" ? "#/" : `#/${page}`;
  return path + (id ? `/${encodeURIComponent(id)}` : "") + (parameters.size ? `?${parameters}` : "");
}

/** Changes parameters of the present page, without a new step for the button Back where `replace` is true. */
export function setQuery(changes, replace = true) {
  const { page, id, query } = route.get();
  go(address(page, id, { ...query, ...changes }), replace);
}

export function go(hash, replace = false) {
  if (!replace) {
    location.hash = hash;
    return;
  }
  history.replaceState(null, "", hash);
  route.set(parseHash(hash));
}
