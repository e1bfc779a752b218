/** A chart of one report: lines with gaps where the bridge says so, a band where there are minima and maxima. */
import { dayAndTime, number, scaleOf, zone } from "./format.js";
import { html, useEffect, useRef } from "./html.js";
import { createStore, useStore } from "./store.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
/** Grows when colours or sizes change, so that charts are drawn anew. */
export const look = createStore(0);
const changed = () => look.set((count) => count + 1);
dark.addEventListener("change", changed);
addEventListener("resize", () => {
  clearTimeout(changed.timer);
  changed.timer = setTimeout(changed, 150);
});

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const lineColor = (index) => color(`line-${(index % 6) + 1}`);

/**
 * @param columns [times in s, values…], as uPlot takes them
 * @param lines `{label, unit, color, width, dash, fill, paths, band, hidden, dot}` for each column of values
 * @param options `{height, range, zoom, back, marks(context, chart), units}`
 */
export function Chart({ columns, lines, label, height = 200, range, zoom, back, mark }) {
  const place = useRef(null);
  const drawn = useStore(look);
  const shownZone = useStore(zone);
  useEffect(() => {
    const chart = new globalThis.uPlot(
      chartOptions(place.current, { lines, height, range, zoom, mark }),
      columns,
      place.current,
    );
    const canvas = place.current.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    const leave = () => back?.();
    chart.over.addEventListener("dblclick", leave);
    return () => chart.destroy();
  }, [columns, lines, drawn, shownZone]);
  return html`<div class="plot" ref=${place} style=${{ minHeight: `${height}px` }}></div>`;
}

function chartOptions(place, { lines, height, range, zoom, mark }) {
  const units = [...new Set(lines.map((line) => line.unit))];
  return {
    width: place.clientWidth,
    height,
    tzDate: zone.get() === "UTC" ? (ts) => globalThis.uPlot.tzDate(new Date(ts * 1000), "Etc/UTC") : undefined,
    legend: { show: false },
    // The pointer shows the same moment in all charts with a span; what is dragged in one is not copied to the others.
    cursor: {
      drag: { x: Boolean(zoom), y: false, setScale: false },
      points: { size: 6 },
      sync: zoom && { key: "span", setSeries: false, scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
    },
    select: { show: Boolean(zoom) },
    scales: {
      x: { time: true, range: range && (() => range) },
      ...Object.fromEntries(units.map((unit) => [unit, scaleRange(lines, unit)])),
    },
    axes: [
      timeAxis(),
      ...units.slice(0, 2).map((unit, i) =>
        valueAxis(
          unit,
          i,
          lines.some((line) => line.unit === unit && line.mirrored),
        ),
      ),
    ],
    series: [{}, ...lines.map(seriesOptions)],
    bands: lines.flatMap((line, i) => (line.band ? [{ series: [i + 1, i + 2], fill: line.band }] : [])),
    hooks: {
      setSelect: [
        (chart) =>
          zoom &&
          chart.select.width > 4 &&
          zoom(
            1000 * chart.posToVal(chart.select.left, "x"),
            1000 * chart.posToVal(chart.select.left + chart.select.width, "x"),
          ),
      ],
      drawClear: mark ? [mark] : [],
      ready: [(chart) => addTooltip(chart, lines)],
    },
  };
}

function scaleRange(lines, unit) {
  const fromZero = lines.some((line) => line.unit === unit && line.fromZero);
  return {
    range: (chart, min, max) => {
      if (min === null) return [0, 1];
      if (unit === "%" && min >= 0 && max <= 100) return rangeOfShares(min, max);
      const [low, high] = fromZero ? [Math.min(0, min), Math.max(0, max)] : [min, max];
      const margin = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
      return [fromZero && low === 0 ? 0 : low - margin, high + margin];
    },
  };
}

/** Shares stay between 0 and 100 %, and one that does not change has all of it. */
function rangeOfShares(min, max) {
  const margin = (max - min) * 0.08;
  return margin ? [Math.max(0, min - margin), Math.min(100, max + margin)] : [0, 100];
}

function seriesOptions(line) {
  return {
    label: line.label,
    scale: line.unit,
    stroke: line.hidden ? undefined : line.color,
    width: line.hidden ? 0 : (line.width ?? 1.5),
    dash: line.dash,
    fill: line.fill,
    paths: line.paths,
    spanGaps: false,
    points: line.dot === "newest" ? NEWEST : { show: line.hidden ? false : line.points, size: 4 },
  };
}

const NEWEST = {
  show: true,
  size: 8,
  filter: (chart, i) => [chart.data[i].findLastIndex((value) => value !== null && value !== undefined)],
};

function timeAxis() {
  return {
    stroke: color("muted"),
    grid: { stroke: color("grid"), width: 1 },
    ticks: { stroke: color("grid"), width: 1 },
    font: font(),
    values: TIMES,
  };
}

// The day stands below the first time of it.
const TIMES = [
  [3600 * 24 * 365, "{YYYY}", null, null, null, null, null, null, 1],
  [3600 * 24 * 28, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [3600 * 24, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [3600, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
];

function valueAxis(unit, index, mirrored) {
  return {
    scale: unit,
    side: index === 0 ? 3 : 1,
    size: 78,
    stroke: color("muted"),
    font: font(),
    grid: { show: index === 0, stroke: color("grid"), width: 1 },
    ticks: { stroke: color("grid"), width: 1 },
    values: (chart, splits) => {
      const scale = scaleOf(unit, Math.max(...splits.map(Math.abs)));
      return splits.map(
        (value, i) =>
          number((mirrored ? Math.abs(value) : value) / scale.factor, 3) +
          (i === splits.length - 1 ? ` ${scale.unit}` : ""),
      );
    },
  };
}

const font = () => `11px ${getComputedStyle(document.body).fontFamily}`;

/** The values at the pointer, in a box beside it. */
function addTooltip(chart, lines) {
  const box = document.createElement("div");
  box.className = "tooltip";
  box.hidden = true;
  chart.over.append(box);
  chart.over.addEventListener("mouseleave", () => {
    box.hidden = true;
  });
  const show = () => {
    const { idx, left, top } = chart.cursor;
    box.hidden = idx === null || idx === undefined || left < 0;
    if (box.hidden) return;
    const values = lines.flatMap((line, i) => {
      const value = chart.data[i + 1][idx];
      return line.hidden || value === null || value === undefined ? [] : [`${line.label} ${quantityOf(line, value)}`];
    });
    box.textContent = [dayAndTime(1000 * chart.data[0][idx]), ...values].join("\n");
    const beyond = left > chart.over.clientWidth / 2;
    box.style.transform = `translate(${beyond ? left - box.offsetWidth - 12 : left + 12}px, ${Math.max(0, Math.min(top, chart.over.clientHeight - box.offsetHeight))}px)`;
  };
  chart.over.addEventListener("mousemove", () => requestAnimationFrame(show));
}

function quantityOf(line, value) {
  const scale = scaleOf(line.unit, value);
  return `${number((line.mirrored ? Math.abs(value) : value) / scale.factor)} ${scale.unit}`;
}
