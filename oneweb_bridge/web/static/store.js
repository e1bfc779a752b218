/** A value that several parts of the page look at. */
import { useEffect, useState } from "./html.js";

/**
 * @template T
 * @param {T} value
 */
export function createStore(value) {
  const listeners = new Set();
  return {
    get: () => value,
    /** Sets a value, or makes one from the old one, and tells who looks at it. */
    set(next) {
      const old = value;
      value = typeof next === "function" ? next(old) : next;
      if (value !== old) listeners.forEach((listener) => listener(value));
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The value of a store, drawn anew whenever it changes. */
export function useStore(store) {
  const [value, setValue] = useState(store.get());
  useEffect(() => {
    setValue(store.get());
    return store.subscribe(() => setValue(store.get()));
  }, [store]);
  return value;
}

/** Reads a setting that this browser keeps; what it cannot keep is simply not kept. */
export function readSetting(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`oneweb.${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

export function writeSetting(name, value) {
  try {
    localStorage.setItem(`oneweb.${name}`, JSON.stringify(value));
  } catch {
    // A private window keeps nothing.
  }
}
