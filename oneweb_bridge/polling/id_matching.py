"""Which ids of a report, of usage or of components belong to a record of the inventory, in one poll.

An id that matches no terminal or product gets no topic. What comes of it is kept aside until the inventory lists it.
"""

from collections.abc import Callable, Iterable, Sequence

from oneweb_bridge.config import filters
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.coverage import Finding
from oneweb_bridge.decode.expectations import INVENTORY
from oneweb_bridge.decode.id_coverage import UnmatchedIds, ids_finding, is_worth_reporting
from oneweb_bridge.model.records import RecordKind
from oneweb_bridge.store.store import Store

MAX_EXAMPLES = 50
"""Ids that are looked for in other fields of the inventory."""
LISTING_MS = 60_000
"""How long a listing of the inventory may take: what came meanwhile may just be too new for it."""


class InventoryCalls:
    """What the manager of the calls knows of those that list the inventory.

    Without a manager, as in a single poll, a call is as it is configured, and nothing is waited for.
    """

    def __init__(self) -> None:
        self.is_enabled: Callable[[str], bool] | None = None
        self.is_expected: Callable[[str], bool] = lambda _: False
        """Whether a call that has not listed anything yet will soon: it has not failed."""
        self.matching_fields: dict[str, tuple[Sequence[str], str]] = {}
        """Call -> ids that matched nothing, and the field of the inventory that has them."""


def matched_kind(call: Call) -> RecordKind | None:
    """The kind of record that the ids of a call must match; None where they make records themselves."""
    if call.reads == "usage":
        return "product"
    return call.entity if call.reads in ("report", "components") and call.entity in INVENTORY else None


class IdMatcher:
    """Matches the ids of one poll. `begin` reads how far the inventory is known."""

    def __init__(self, store: Store, config: Config, inventory: InventoryCalls, call: Call) -> None:
        self._store = store
        self._config = config
        self._inventory = inventory
        self._call = call
        self._kind = matched_kind(call)
        self._is_matching = False
        self._is_awaiting = False
        self._listed_at = 0
        self._ids: dict[str, str] = {}
        self._total = 0
        self._unmatched: set[str] = set()

    async def begin(self) -> None:
        """Ids are taken as they are while the inventory is disabled or has never been listed, and under a filter."""
        if self._kind is None or filters.active(self._config.filter):
            return
        call = INVENTORY[self._kind]
        is_enabled = self._inventory.is_enabled
        if not (self._config.polling[call].enabled if is_enabled is None else is_enabled(call)):
            return
        progress = await self._store.progress.load(call)
        self._is_matching, self._listed_at = progress.complete, progress.succeeded
        self._is_awaiting = not progress.complete and self._inventory.is_expected(call)
        if self._call.match:
            self._ids = await self._store.unmatched.ids_by_field(self._kind, self._call.match)

    def record_id(self, id: str) -> str:
        """The id of the record that an id of the answer stands for, by `polling.<call>.match`."""
        return self._ids.get(id, id)

    async def unmatched(self, ids: Iterable[str]) -> set[str]:
        """Those of some record ids that match no record, and no record that was removed. Counts them."""
        unique = sorted(set(ids))
        self._total += len(unique)
        if self._kind is None or not (self._is_matching or self._is_awaiting):
            return set()
        known = await self._store.records.existing_ids("record", self._kind, unique)
        unknown = set(unique) - known
        if unknown:
            unknown -= await self._store.records.existing_ids("removed", self._kind, sorted(unknown))
        self._unmatched |= unknown
        return unknown

    async def findings(self) -> list[Finding]:
        """What is reported of the ids that matched nothing. What is kept aside for too long goes."""
        call, hold_ms = self._call.id, round(self._config.removal.hold_for * 1000)
        if not self._unmatched or self._kind is None:
            return []
        await self._store.unmatched.trim(call, self._store.steady.now() - hold_ms)
        if self._is_awaiting:
            return []
        examples = sorted(self._unmatched)[:MAX_EXAMPLES]
        unmatched = UnmatchedIds(
            count=len(self._unmatched),
            total=self._total,
            examples=tuple(examples),
            lasting=await self._store.unmatched.count_kept_before(call, self._listed_at - LISTING_MS),
            matching_field=await self._matching_field(examples),
        )
        return [ids_finding(self._call, self._kind, unmatched)] if is_worth_reporting(unmatched) else []

    async def _matching_field(self, examples: Sequence[str]) -> str:
        """The field that has the ids. It is looked for once for the same ids, because all records are read."""
        cached, call = self._inventory.matching_fields, self._call.id
        if self._kind is not None and (call not in cached or cached[call][0] != examples):
            cached[call] = examples, await self._store.unmatched.field_with(self._kind, examples)
        return cached[call][1]
