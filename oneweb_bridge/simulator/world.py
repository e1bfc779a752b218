"""The whole story behind one door: collections of objects, of which any slice can be built for any time."""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .changes import Changes
from .clock import Clock, parse_rfc3339
from .draws import About, draw
from .fleet import EXTRA_PRODUCTS, Fleet
from .inventory import Inventory
from .life import Life
from .options import Options
from .plans import plan_of
from .reports import TERMINAL_REPORTS, Reports
from .usage import Usage

Json = dict[str, Any]
Window = tuple[float, float]


class Collection(msgspec.Struct, frozen=True):
    """A list of objects: which there are, how one is built, and whose an id is."""

    members: Callable[[float], Sequence[int]]
    build: Callable[[int, float], Json]
    index_of: Callable[[str], int | None]

    def slice(self, begin: int, end: int, at: float) -> list[Json]:
        """The objects at some places of the list."""
        return [self.build(index, at) for index in self.members(at)[begin:end]]

    def find(self, key: str, at: float) -> Json | None:
        """The object with an id, if it is listed."""
        index = self.index_of(key)
        if index is None:
            return None
        members = self.members(at)
        place = bisect_left(members, index)
        return self.build(index, at) if place < len(members) and members[place] == index else None


class World:
    """Clock, fleet and changes, and the collections made of them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.clock = Clock(parse_rfc3339(options.start) if options.start else time.time(), options.speed)
        self.changes = Changes()
        self.fleet = Fleet(options, self.changes)
        self.life = Life(self.fleet, self.changes, options.liveliness)
        self.inventory = Inventory(self.fleet, self.life, self.changes, options.shape)
        self.usage = Usage(self.fleet, self.changes, options)
        self.reports = Reports(self.fleet, self.life, self.changes, options)
        self._memo: dict[str, tuple[object, Sequence[int]]] = {}
        self.collections = self._collections()

    def _collections(self) -> dict[str, Collection]:
        fleet, build = self.fleet, self.inventory
        return {
            "terminals": Collection(self._terminals, build.terminal, fleet.terminal_index),
            "components": Collection(self._terminals, build.components, fleet.terminal_index),
            "products": Collection(self._products, build.product, fleet.product_index),
            "organizations": Collection(self._organizations, build.organization, fleet.organization_index),
            "sites": Collection(self._sites, build.site, fleet.site_index),
            "usage": Collection(self._metered, self.usage.report, self._usage_index),
        }

    def performance(self, report: str, window: Window | None) -> Collection:
        """The collection of a report's entries. KeyError if there is no such report."""
        if report == "throughput":
            return Collection(
                self._products,
                lambda index, at: self.reports.throughput(index, window, at),
                self.fleet.product_index,
            )
        definition = TERMINAL_REPORTS[report]
        return Collection(
            self._terminals,
            lambda index, at: self.reports.terminal_report(definition, index, window, at),
            self.fleet.terminal_index,
        )

    def chance(self, *keys: int) -> float:
        """A number in [0, 1) that the story does not use."""
        return draw(self.fleet.seed, About.DROPPED, *keys)

    # who is listed; the answers are remembered as long as nothing about them changes

    def _remember(self, name: str, key: object, make: Callable[[], Sequence[int]]) -> Sequence[int]:
        known = self._memo.get(name)
        if known is None or known[0] != key:
            known = self._memo[name] = (key, make())
        return known[1]

    def _terminals(self, at: float) -> Sequence[int]:
        away = tuple(index for index in self.fleet.wanderers() if not self.life.is_present(index, at))
        removed = self.changes.removed.get("terminals", set()).union(away)
        added = [addition.index for addition in self.changes.additions]
        key = (self.changes.revision, away)
        return self._remember(
            "terminals",
            key,
            lambda: [index for index in [*range(self.fleet.size), *added] if index not in removed],
        )

    def _products(self, _at: float) -> Sequence[int]:
        removed = self.changes.removed.get("products", set())
        added = [addition.index for addition in self.changes.additions]
        extras = range(EXTRA_PRODUCTS, EXTRA_PRODUCTS + self.fleet.extras)

        def make() -> list[int]:
            served = [index for index in [*range(self.fleet.size), *added] if not self.fleet.is_spare(index)]
            return [index for index in [*served, *extras] if index not in removed]

        return self._remember("products", self.changes.revision, make)

    def _metered(self, at: float) -> Sequence[int]:
        removed = self.changes.removed.get("usage", set())
        products = self._products(at)
        return self._remember(
            "usage",
            self.changes.revision,
            lambda: [index for index in products if plan_of(index).is_metered and index not in removed],
        )

    def _organizations(self, _at: float) -> Sequence[int]:
        return self._without("organizations", self.fleet.organization_count())

    def _sites(self, _at: float) -> Sequence[int]:
        return self._without("sites", self.fleet.sites)

    def _without(self, kind: str, count: int) -> Sequence[int]:
        removed = self.changes.removed.get(kind)
        return [number for number in range(count) if number not in removed] if removed else range(count)

    def _usage_index(self, key: str) -> int | None:
        """Whose a report id (or a bucket id) is; any effective date will do."""
        parts = key.removeprefix("UCR-").split("-")
        if len(parts) < 2 or not parts[1].isdecimal():
            return None
        index = int(parts[1]) - 171_000_000
        return index if index >= 0 and self.usage.bucket_id(index) == "-".join(parts[:2]) else None
