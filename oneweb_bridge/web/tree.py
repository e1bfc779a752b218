"""Organizations, sites and the count of their terminals by state, as a tree. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from oneweb_bridge.web.payloads import TreeNode

UNKNOWN_STATE = "unknown"
_ORDER = {"organization": 0, "site": 1, "none": 2}


class Organization(msgspec.Struct, frozen=True):
    """What the tree needs of an organization."""

    name: str | None = None
    parent_id: str | None = None


class Site(msgspec.Struct, frozen=True):
    """What the tree needs of a site."""

    name: str | None = None
    related_party_id: str | None = None


class Reference(msgspec.Struct, frozen=True):
    """An id, and its name where it is known."""

    id: str
    name: str | None = None


class Terminal(msgspec.Struct, frozen=True):
    """A terminal's state, and where it belongs."""

    state: str | None = None
    site: Reference | None = None
    owner: Reference | None = None
    """Its end customer, else its distribution partner."""


def build_tree(
    organizations: Mapping[str, Organization], sites: Mapping[str, Site], terminals: Iterable[Terminal]
) -> list[TreeNode]:
    """The roots. Each terminal counts once, under its owner and up its parents; the roots add up to the fleet."""
    tree = _Tree(organizations, sites)
    for terminal in terminals:
        tree.place_terminal(terminal)
    tree.place_empty_sites()
    return tree.roots()


class _Tree:
    def __init__(self, organizations: Mapping[str, Organization], sites: Mapping[str, Site]) -> None:
        self._sites = sites
        self._organizations = {
            id: TreeNode(kind="organization", id=id, name=organization.name)
            for id, organization in organizations.items()
        }
        self._parents = {id: organization.parent_id for id, organization in organizations.items()}
        self._places: dict[str | None, dict[str | None, TreeNode]] = defaultdict(dict)
        """Owner, None for nobody -> site, None for none -> its node."""

    def place_terminal(self, terminal: Terminal) -> None:
        owner = None if terminal.owner is None else terminal.owner.id
        if terminal.owner is not None and terminal.owner.id not in self._organizations:
            self._organizations[terminal.owner.id] = TreeNode(
                kind="organization", id=terminal.owner.id, name=terminal.owner.name
            )
        node = self._place(owner, terminal.site)
        state = terminal.state or UNKNOWN_STATE
        for counted in (node, *self._ancestors(owner)):
            counted.terminals += 1
            counted.states[state] = counted.states.get(state, 0) + 1

    def _place(self, owner: str | None, site: Reference | None) -> TreeNode:
        places, id = self._places[owner], None if site is None else site.id
        if id not in places:
            if site is None:
                places[id] = TreeNode(kind="none", id="", name=None)
            else:
                known = self._sites.get(site.id)
                name = site.name if known is None or known.name is None else known.name
                places[id] = TreeNode(kind="site", id=site.id, name=name)
        return places[id]

    def place_empty_sites(self) -> None:
        """Sites without terminals stand below the party that their record names."""
        used = {id for places in self._places.values() for id in places}
        for id, site in self._sites.items():
            if id not in used:
                party = site.related_party_id if site.related_party_id in self._organizations else None
                self._place(party, Reference(id, site.name))

    def _ancestors(self, owner: str | None) -> list[TreeNode]:
        """An organization and those above it, each once, also where the parents go round in a circle."""
        seen: list[str] = []
        while owner is not None and owner in self._organizations and owner not in seen:
            seen.append(owner)
            owner = self._parent(owner)
        return [self._organizations[id] for id in seen]

    def _parent(self, id: str) -> str | None:
        """The parent that an organization stands below: of a circle the smallest id stands at the top."""
        parent, circle = self._parents.get(id), [id]
        while parent is not None and parent in self._organizations and parent not in circle:
            circle.append(parent)
            parent = self._parents.get(parent)
        own = self._parents.get(id)
        if parent == id and id == min(circle):
            return None
        return own if own in self._organizations else None

    def roots(self) -> list[TreeNode]:
        roots: list[TreeNode] = []
        for id, node in self._organizations.items():
            parent = self._parent(id)
            (roots if parent is None else self._organizations[parent].children).append(node)
        for owner, places in self._places.items():
            (roots if owner is None else self._organizations[owner].children).extend(places.values())
        for node in self._organizations.values():
            node.children.sort(key=_sort_key)
        return sorted(roots, key=_sort_key)


def _sort_key(node: TreeNode) -> tuple[int, str, str]:
    return _ORDER[node.kind], (node.name or node.id).casefold(), node.id
