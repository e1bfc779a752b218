"""What products allow, to know rates and amounts that cannot be."""

from collections.abc import Mapping

import msgspec

from oneweb_bridge.decode.coverage import NO_LIMITS, Limits
from oneweb_bridge.decode.expectations import LIMITS
from oneweb_bridge.model.records import Fields
from oneweb_bridge.store.slices import SLICE
from oneweb_bridge.store.store import Store

_LIMITING = sorted(set(LIMITS.values()))


class ProductLimits:
    """The allowance and the bandwidths of each product, in RAM; read once from the store, then kept up to date."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._limits: dict[str, Limits] = {}
        self._is_loaded = False

    async def load(self) -> Mapping[str, Limits]:
        """Product -> its limits."""
        if not self._is_loaded:
            limits: dict[str, Limits] = {}
            after = ""
            while rows := await self._store.records.missing_counts_after("product", after):
                ids = [row[0] for row in rows[:SLICE]]
                for id, record in (await self._store.records.load("product", ids)).items():
                    limits[id] = _limits_of(msgspec.json.decode(record.doc))
                after = ids[-1]
            # What was decoded since is newer than what was read.
            self._limits, self._is_loaded = limits | self._limits, True
        return self._limits

    def note(self, id: str, fields: Fields) -> None:
        """Takes over a product that was just decoded."""
        self._limits[id] = _limits_of(fields)


def _limits_of(fields: Fields) -> Limits:
    limits = {name: value for name in _LIMITING if isinstance(value := fields.get(name), float) and value > 0}
    return limits or NO_LIMITS
