/** What every module draws with: preact through htm, so that a component is written without a build. */
import { h } from "preact";
import htm from "htm";

export { Component, Fragment, render } from "preact";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

export const html = htm.bind(h);
