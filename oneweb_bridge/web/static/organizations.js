/** The tree: partners, customers, sites, with how many of their terminals are online; and the record of a node. */
import { filterRows, fleet, loadFleet } from "./fleetdata.js";
import { plural, shorten } from "./format.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { RecordTable } from "./record.js";
import { address, route, setQuery } from "./router.js";
import { useStore } from "./store.js";
import { useSubtree } from "./subtree.js";
import { Message, Page, Problem, State, useResource } from "./ui.js";

export function OrganizationsPage() {
  const { query } = useStore(route);
  const [drawn, setDrawn] = useState(null);
  const chosen = query.id ? `${query.kind} ${query.id}` : null;
  const { data, error, ready } = useResource(
    "tree",
    (name, message) => name === "state" && message.what !== "usage" && Boolean(message.entity),
  );
  return html`<${Page} name="organizations" title="Organizations" ready=${ready && drawn === chosen}>
    <${Problem} error=${error} />
    ${data && data.roots.length === 0 && html`<${Message}>No organizations yet: they come with the calls organizations and user_terminals.<//>`}
    <div class="tree-page">
      ${data && data.roots.length > 0 && html`<div class="card"><${Tree} roots=${data.roots} chosen=${query} /></div>`}
      ${
        query.id
          ? html`<${Details} kind=${query.kind} id=${query.id} node=${findNode(data?.roots ?? [], query)}
              onReady=${(isReady) => setDrawn(isReady ? chosen : null)} />`
          : data?.roots.length > 0 && html`<p class="muted">Choose an organization or a site to see its record and its terminals. The numbers count terminals by state.</p>`
      }
    </div>
  <//>`;
}

/** The nodes that are to be seen, from top to bottom: `{node, path, level, parent}`. */
function visible(nodes, open, level = 1, parent = "") {
  return nodes.flatMap((node, i) => {
    const path = `${parent}/${node.kind}:${node.id ?? ""}`;
    const entry = { node, path, level, parent, place: i + 1, size: nodes.length };
    return open.has(path) ? [entry, ...visible(node.children, open, level + 1, path)] : [entry];
  });
}

/** Keys as in every tree: up, down, right opens, left closes, Home, End, Enter chooses. */
function Tree({ roots, chosen }) {
  const [open, setOpen] = useState(
    () => new Set(roots.length < 30 ? roots.map((node) => `/${node.kind}:${node.id ?? ""}`) : []),
  );
  const entries = visible(roots, open);
  const [focus, setFocus] = useState(entries[0].path);
  const focused = entries.some(({ path }) => path === focus) ? focus : entries[0].path;
  const items = useRef(new Map());
  const moved = useRef(false);
  useEffect(() => {
    if (moved.current) items.current.get(focused)?.focus();
  }, [focused]);
  const toggle = (path) =>
    setOpen((old) => {
      const next = new Set(old);
      if (!next.delete(path)) next.add(path);
      return next;
    });
  const choose = ({ node }) => node.id && setQuery({ kind: node.kind, id: node.id });
  const key = (event) => {
    const at = entries.findIndex(({ path }) => path === focused);
    const { node, path, parent } = entries[at];
    const isOpen = open.has(path);
    const target = {
      ArrowDown: () => entries[at + 1]?.path,
      ArrowUp: () => entries[at - 1]?.path,
      Home: () => entries[0].path,
      End: () => entries.at(-1).path,
      ArrowRight: () => (isOpen ? entries[at + 1]?.path : node.children.length && toggle(path)),
      ArrowLeft: () => (isOpen ? toggle(path) : parent),
      Enter: () => choose(entries[at]),
      " ": () => choose(entries[at]),
    }[event.key];
    if (!target) return;
    event.preventDefault();
    moved.current = true;
    const next = target();
    if (typeof next === "string" && next) setFocus(next);
  };
  return html`<ul role="tree" aria-label="Organizations" class="tree" onKeyDown=${key}>
    ${entries.map(
      (
        entry,
      ) => html`<${TreeItem} key=${entry.path} entry=${entry} isOpen=${open.has(entry.path)}
          focused=${entry.path === focused}
      chosen=${chosen.id === entry.node.id && chosen.kind === entry.node.kind} items=${items.current}
      onClick=${() => {
        setFocus(entry.path);
        choose(entry);
        if (entry.node.children.length) toggle(entry.path);
      }} />`,
    )}
  </ul>`;
}

function TreeItem({ entry, isOpen, focused, chosen, items, onClick }) {
  const { node, path, level, place, size } = entry;
  const branches = node.children.length > 0;
  return html`<li role="treeitem" aria-level=${level} aria-setsize=${size} aria-posinset=${place}
      aria-expanded=${branches ? isOpen : undefined}
      aria-selected=${Boolean(chosen)} tabindex=${focused ? 0 : -1} data-kind=${node.kind} data-id=${node.id}
          style=${{ "--level": level }} onClick=${onClick}
      ref=${(element) => (element ? items.set(path, element) : items.delete(path))}>
    <span class="twist" aria-hidden="true">${branches ? (isOpen ? "▾" : "▸") : ""}</span>
    <bdi>${node.kind === "none" ? "Without a site" : shorten(node.name ?? node.id, 100)}</bdi>
    ${node.kind === "site" && html`<span class="muted small">site</span>`}
    <span class="states">${Object.entries(node.states)
      .sort()
      .reverse()
      .map(
        ([state, count]) =>
          html`<span key=${state} class="state" data-state=${state}><i aria-hidden="true"></i><span
              class="hidden">${state} </span>${count}</span>`,
      )}</span>
  </li>`;
}

function Details({ kind, id, node, onReady }) {
  const path = `${kind === "site" ? "sites" : "organizations"}/${encodeURIComponent(id)}`;
  const { data, error, ready } = useResource(path, (name, message) => message?.id === id);
  useEffect(() => {
    onReady(ready);
    return () => onReady(false);
  }, [path, ready]);
  if (error?.status === 404) return html`<${Unlisted} kind=${kind} id=${id} node=${node} />`;
  if (error) return html`<section class="card"><p class="muted">${error.message}</p></section>`;
  if (!data || !ready) return html`<section class="card"><p class="muted">Loading …</p></section>`;
  return html`<section class="card details"><h2><bdi>${shorten(data.record.name ?? id, 200)}</bdi></h2>
    <${Links} kind=${kind} id=${id} />
    <${RecordTable} record=${data.record} />
    ${data.terminals && html`<${Terminals} terminals=${data.terminals} />`}
  </section>`;
}

function Links({ kind, id }) {
  const filter = kind === "site" ? { site: id } : { organization: id };
  return html`<p><a href=${address("fleet", "", filter)}>its terminals in the fleet</a> · <a
      href=${address("map", "", filter)}>on the map</a></p>`;
}

const LISTED = 100;

function Terminals({ terminals }) {
  const more = terminals.length - LISTED;
  return html`<h3>${plural(terminals.length, "terminal")}</h3><ul class="plain">${terminals.slice(0, LISTED).map(
    (terminal) => html`<li key=${terminal.imei}>
      <a href=${address("terminal", terminal.imei)}><bdi>${shorten(terminal.name ?? terminal.imei)}</bdi></a> <${State} state=${terminal.state} /></li>`,
  )}</ul>${more > 0 && html`<p class="muted small">and ${plural(more, "more terminal")}</p>`}`;
}

function findNode(nodes, { kind, id }) {
  for (const node of nodes) {
    const match = node.kind === kind && node.id === id ? node : findNode(node.children, { kind, id });
    if (match) return match;
  }
  return null;
}

/** A site or an organization that terminals name, and of which no record is listed (any more). */
function Unlisted({ kind, id, node }) {
  const data = useStore(fleet);
  const below = useSubtree(kind === "site" ? undefined : id);
  useEffect(() => {
    loadFleet();
  }, []);
  const isKnown = data && (kind === "site" || below);
  const rows = isKnown ? filterRows(data.rows, kind === "site" ? { site: id } : { organization: id }) : [];
  return html`<section class="card details"><h2><bdi>${shorten(node?.name ?? id, 200)}</bdi></h2>
    <p class="muted">No record of this ${kind} is listed: the API does not show it${node ? ", but terminals name it" : " any more"}.</p>
    <${Links} kind=${kind} id=${id} />
    ${isKnown && html`<${Terminals} terminals=${rows} />`}
  </section>`;
}
