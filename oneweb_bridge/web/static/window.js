/** Which rows of a long table are in view, by the scroll of the page. */
import { useEffect, useLayoutEffect, useState } from "./html.js";

export const MAX_ROWS = 72;
const MARGIN_ROWS = 12;

/** `first` and `last` row to draw, the `height` of one, and of all; the rows stand at `index * height` below `body`. */
export function useWindow(body, count) {
  const [scroll, setScroll] = useState(0);
  const height = useRowHeight();
  useLayoutEffect(() => {
    const measure = () =>
      body.current && setScroll(Math.max(0, Math.floor(-body.current.getBoundingClientRect().top / height)));
    measure();
    addEventListener("scroll", measure, { passive: true });
    addEventListener("resize", measure);
    return () => {
      removeEventListener("scroll", measure);
      removeEventListener("resize", measure);
    };
  }, [height, count]);
  const inView = Math.min(MAX_ROWS - 2 * MARGIN_ROWS, Math.ceil(innerHeight / height) + 1);
  const first = Math.max(0, Math.min(scroll, count - inView) - MARGIN_ROWS);
  return { first, last: Math.min(count, first + inView + 2 * MARGIN_ROWS), height, total: count * height };
}

const narrow = matchMedia("(max-width: 600px)");

function useRowHeight() {
  const [isNarrow, setNarrow] = useState(narrow.matches);
  useEffect(() => {
    const change = () => setNarrow(narrow.matches);
    narrow.addEventListener("change", change);
    return () => narrow.removeEventListener("change", change);
  }, []);
  return isNarrow ? 64 : 40;
}
