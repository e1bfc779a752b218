/** All terminals on a map, with a grid where they are dense, and the same as a list. */
import { filterRows, fleet, loadFleet } from "./fleetdata.js";
import { FleetFilters } from "./filters.js";
import { number, plural, shorten } from "./format.js";
import { html, useEffect, useMemo, useRef, useState } from "./html.js";
import { toMap, useLand } from "./mapthumb.js";
import { address, route } from "./router.js";
import { useStore } from "./store.js";
import { useSubtree } from "./subtree.js";
import { sortByText } from "./textorder.js";
import { Message, Page, Problem, State, useLater } from "./ui.js";

const WORLD = { x: 0, y: 60, width: 3600, height: 1640 };
const CELL_PX = 30;
const LISTED = 200;

export function MapPage() {
  const data = useStore(fleet);
  const { query } = useStore(route);
  useEffect(() => {
    loadFleet();
  }, []);
  const later = useLater(data !== null);
  const [view, setView] = useState(WORLD);
  const [chosen, setChosen] = useState(null);
  const [width, setWidth] = useState(900);
  const unit = view.width / width;
  const below = useSubtree(query.organization);
  const rows = useMemo(() => filterRows(data?.rows ?? [], query), [data?.version, query, below]);
  const placed = useMemo(() => rows.filter((row) => row.latitude !== null && row.longitude !== null), [rows]);
  const elsewhere = rows.length - placed.length;
  const cells = useMemo(() => gather(placed, view, CELL_PX * unit), [placed, view, unit]);
  const listed = useMemo(() => listRows(placed, chosen), [placed, chosen]);
  const where = chosen ? "here" : "on the map";
  return html`<${Page} name="map" title="Map" ready=${later && (!query.organization || below !== null)} heading=${data && html`<p class="counts"
      role="status">${plural(placed.length, "terminal")} on the map${elsewhere > 0 && `, ${number(elsewhere)} without a position`}</p>`}>
    ${
      data &&
      html`<div class="tools"><${FleetFilters} rows=${data.rows} query=${query} complete=${later} /></div>
    <${Problem} error=${data.error} />
    ${!data.error && placed.length === 0 && html`<${Message}>${
      rows.length || !data.rows.length
        ? "No terminal with a position: it comes with the call user_terminals."
        : html`No terminal passes these filters. <a href="#/map">Show all</a>`
    }<//>`}
    <div class="map-page">
      <${Land} unit=${unit} onWidth=${setWidth} view=${view} setView=${setView} cells=${cells} onChoose=${setChosen}
          chosen=${chosen} />
      <section class="card map-list" aria-label="Terminals"><h2>${plural(chosen ? listed.all : placed.length, "terminal")} ${where}
        ${chosen && html`<button class="link" onClick=${() => setChosen(null)}>all</button>`}</h2>
        <ul>${listed.rows.map((row) => html`<li key=${row.imei}><a
            href=${address("terminal", row.imei)}><bdi>${shorten(row.name ?? row.imei)}</bdi></a><${State}
            state=${row.state} /></li>`)}</ul>
        ${listed.all > LISTED && html`<p class="muted small">and ${number(listed.all - LISTED)} more: filter, or choose a dot</p>`}
      </section>
    </div>`
    }
  <//>`;
}

function listRows(rows, chosen) {
  const found = chosen ? rows.filter((row) => chosen.has(row.imei)) : rows;
  return {
    all: found.length,
    rows: sortByText(found, (row) => row.name ?? row.imei).slice(0, LISTED),
  };
}

/** Terminals of one field of a grid become one dot, at their middle; `size` is that of a field. */
function gather(rows, view, size) {
  const cells = new Map();
  for (const row of rows) {
    const [x, y] = toMap(row.longitude, row.latitude);
    if (x < view.x - size || x > view.x + view.width + size || y < view.y - size || y > view.y + view.height + size)
      continue;
    const key = `${Math.floor(x / size)} ${Math.floor(y / size)}`;
    const cell = cells.get(key) ?? { key, x: 0, y: 0, rows: [], offline: 0 };
    cell.x += x;
    cell.y += y;
    cell.rows.push(row);
    cell.offline += row.state === "offline";
    cells.set(key, cell);
  }
  const dots = [...cells.values()].map((cell) => ({
    ...cell,
    x: cell.x / cell.rows.length,
    y: cell.y / cell.rows.length,
  }));
  return mergeNear(dots, size);
}

/** Dots of neighbouring fields that would lie on each other become one, at the place of the larger. */
function mergeNear(dots, distance) {
  const merged = [];
  for (const dot of dots.sort((a, b) => b.rows.length - a.rows.length)) {
    const near = merged.find((other) => Math.hypot(other.x - dot.x, other.y - dot.y) < distance);
    if (!near) merged.push(dot);
    else {
      near.rows = near.rows.concat(dot.rows);
      near.offline += dot.offline;
    }
  }
  return merged;
}

function Land({ unit, onWidth, view, setView, cells, onChoose, chosen }) {
  const land = useLand();
  const svg = useRef(null);
  const drag = useRef(null);
  const zoom = (factor, centre = [view.x + view.width / 2, view.y + view.height / 2]) =>
    setView(zoomed(view, factor, centre));
  const wheel = (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 0.8 : 1.25, pointOf(svg.current, view, event));
  };
  useEffect(() => {
    const element = svg.current;
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  });
  useEffect(() => {
    const observer = new ResizeObserver(() => onWidth(svg.current?.clientWidth || 900));
    observer.observe(svg.current);
    return () => observer.disconnect();
  }, []);
  const move = (event) => {
    if (!drag.current) return;
    const [x, y] = pointOf(svg.current, drag.current.view, event);
    setView(
      inside({
        ...drag.current.view,
        x: drag.current.view.x + drag.current.x - x,
        y: drag.current.view.y + drag.current.y - y,
      }),
    );
  };
  const press = (event) => {
    const [x, y] = pointOf(svg.current, view, event);
    drag.current = { x, y, view };
  };
  const choose = (cell) => {
    onChoose(new Set(cell.rows.map((row) => row.imei)));
    if (cell.rows.length > 1 && view.width > 40) zoom(0.4, [cell.x, cell.y]);
  };
  return html`<div class="map card">
    <svg ref=${svg} viewBox=${`${view.x} ${view.y} ${view.width} ${view.height}`} role="img"
        aria-label="World map with the terminals, which the list beside it names"
        onPointerDown=${press} onPointerMove=${move} onPointerUp=${() => {
          drag.current = null;
        }} onPointerLeave=${() => {
          drag.current = null;
        }}>
      <path class="land" d=${land} />
      ${cells.map((cell) => html`<${Dot} key=${cell.key} cell=${cell} unit=${unit}
          chosen=${chosen && cell.rows.some((row) => chosen.has(row.imei))} onClick=${() => choose(cell)} />`)}
    </svg>
    <div class="map-buttons">
      <button aria-label="Zoom in" onClick=${() => zoom(0.5)}>+</button>
      <button aria-label="Zoom out" onClick=${() => zoom(2)}>−</button>
      <button aria-label="Whole world" onClick=${() => setView(WORLD)}>⤢</button>
    </div>
    <p class="map-legend small">${[
      ["online", "online"],
      ["offline", "offline"],
      ["mixed", "some of them offline"],
      ["unknown", "another state, or unknown"],
    ].map(([state, words]) => html`<span key=${state}><svg viewBox="0 0 12 12" aria-hidden="true" class="dot" data-state=${state}><circle
        cx="6" cy="6" r="5" /></svg>${words}</span>`)}</p>
    <p class="muted small drag-hint">Drag to move, Ctrl and wheel to zoom; click a dot to see its terminals.</p>
  </div>`;
}

function Dot({ cell, unit, chosen, onClick }) {
  const count = cell.rows.length;
  const radius = unit * (count === 1 ? 6 : 8.5 + 3 * Math.log10(count));
  const state = stateOf(cell);
  const title =
    count === 1
      ? `${cell.rows[0].name ?? cell.rows[0].imei}: ${cell.rows[0].state ?? "–"}`
      : `${count} terminals, ${cell.offline} offline`;
  return html`<g class="dot" data-state=${state} data-chosen=${chosen ? "" : undefined} onClick=${onClick}>
    <title>${title}</title>
    <circle cx=${cell.x} cy=${cell.y} r=${radius} stroke-width=${unit * 1.5} />
    ${state === "offline" && count === 1 && html`<circle class="hole" cx=${cell.x} cy=${cell.y} r=${radius * 0.45} />`}
    ${count > 1 && html`<text x=${cell.x} y=${cell.y} font-size=${unit * 11} dy=".35em">${count}</text>`}
  </g>`;
}

/** One word for all terminals of a dot; `mixed` where some of them are offline, and others are not. */
function stateOf({ rows, offline }) {
  if (offline > 0) return offline === rows.length ? "offline" : "mixed";
  return rows.some((row) => row.state === "online") ? "online" : "unknown";
}

function pointOf(svg, view, event) {
  const box = svg.getBoundingClientRect();
  return [
    view.x + ((event.clientX - box.left) / box.width) * view.width,
    view.y + ((event.clientY - box.top) / box.height) * view.height,
  ];
}

function zoomed(view, factor, [x, y]) {
  const width = Math.min(WORLD.width, Math.max(12, view.width * factor));
  const share = width / view.width;
  return inside({
    x: x - (x - view.x) * share,
    y: y - (y - view.y) * share,
    width,
    height: (width * WORLD.height) / WORLD.width,
  });
}

function inside(view) {
  const x = Math.max(WORLD.x, Math.min(view.x, WORLD.x + WORLD.width - view.width));
  const y = Math.max(WORLD.y, Math.min(view.y, WORLD.y + WORLD.height - view.height));
  return { ...view, x, y };
}
