/** Texts over time, like the state of a terminal: a strip of segments, with a legend in words. */
import { now } from "./api.js";
import { color } from "./chart.js";
import { dayAndTime, zone } from "./format.js";
import { html, useEffect, useRef } from "./html.js";
import { useStore } from "./store.js";

const HEIGHT = 26;

export function StateStrip({ data, span, title }) {
  const canvas = useRef(null);
  useStore(zone);
  const end = span.to ?? now();
  const begin = span.from ?? end - span.length;
  const values = data.series[0].v;
  const words = [...new Set(values.filter((value) => value !== null))];
  useEffect(() => {
    const draw = () => drawStrip(canvas.current, data, words, begin, end);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    draw();
    addEventListener("resize", draw);
    scheme.addEventListener("change", draw);
    return () => {
      removeEventListener("resize", draw);
      scheme.removeEventListener("change", draw);
    };
  }, [data, begin, end]);
  return html`<canvas class="strip" ref=${canvas} height=${HEIGHT} role="img"
      aria-label=${`${title}, described below`}></canvas>
    <div class="strip-axis muted small"><span>${dayAndTime(begin)}</span><span>${dayAndTime(end)}</span></div>
    <div class="legend small">${words.map((word) => html`<span key=${word}><i
        class=${`swatch ${stateColor(word, words)}`} aria-hidden="true"></i>${word}</span>`)}</div>`;
}

function stateColor(word, words) {
  return { online: "good", offline: "bad" }[word] ?? `line-${(words.indexOf(word) % 6) + 1}`;
}

/** A segment goes from its sample to the next one, or to the edge of a gap. */
function drawStrip(canvas, data, words, begin, end) {
  const ratio = devicePixelRatio;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = HEIGHT * ratio;
  const context = canvas.getContext("2d");
  const x = (time) => (canvas.width * (Math.min(Math.max(time, begin), end) - begin)) / (end - begin);
  const gapAfter = new Map(data.gaps.map(([from, to]) => [from, to]));
  context.fillStyle = color("grid");
  context.fillRect(0, 0, canvas.width, canvas.height);
  data.t.forEach((time, i) => {
    const until = gapAfter.has(time) ? time : (data.t[i + 1] ?? time);
    const value = data.series[0].v[i];
    if (value === null) return;
    context.fillStyle = color(stateColor(value, words));
    const left = Math.floor(x(time));
    context.fillRect(left, 0, Math.max(Math.ceil(x(until)) - left, ratio), canvas.height);
  });
}
