/** What every module draws with: preact through htm, so that a component is written without a build. */
import { h } from "preact";
import htm from "htm";

export { Component, Fragment, render } from "preact";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

/**
 * Without htm's memory of parts that have no values (its documented `this[0] = 3`): each would keep the tree in which it
 * was drawn first, and with that all rows of the fleet as they were then.
 */
export const html = htm.bind(function make(...parts) {
  this[0] = 3;
  return h(...parts);
});
