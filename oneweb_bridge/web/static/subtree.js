/** Whose terminals the tree counts below an organization: what the filter by it keeps in fleet and map. */
import { get } from "./api.js";
import { useEffect } from "./html.js";
import { createStore, useStore } from "./store.js";

/** `{id, name, owners}` of the organization that is filtered by; null until it is known. */
export const subtree = createStore(null);

/** The subtree of an organization, loaded where a filter names one. */
export function useSubtree(id) {
  const known = useStore(subtree);
  useEffect(() => {
    if (id && subtree.get()?.id !== id)
      get("tree").then(
        ({ roots }) => subtree.set(describe(roots, id)),
        () => null,
      );
  }, [id]);
  return id ? known : null;
}

function describe(roots, id) {
  const top = find(roots, id);
  return { id, name: top?.name ?? id, owners: new Set(top ? organizations(top) : [id]) };
}

function find(nodes, id) {
  for (const node of nodes) {
    const match = node.kind === "organization" && node.id === id ? node : find(node.children, id);
    if (match) return match;
  }
  return null;
}

const organizations = (node) =>
  node.kind === "organization" ? [node.id, ...node.children.flatMap(organizations)] : [];

/** Whether the tree counts a row below the organization that is filtered by. */
export function isBelow(row, id) {
  const known = subtree.get();
  return known?.id === id && known.owners.has(row.end_customer_id ?? row.distribution_partner_id);
}
