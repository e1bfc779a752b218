"""Turning requested changes of the fleet into changes of the story."""

from collections.abc import Callable
from typing import Any

import msgspec

from .changes import Addition, Correction
from .faults import Fault
from .world import World

_KINDS = ("terminals", "products", "organizations", "sites", "usage")


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a change of the fleet needs; each operation reads its part."""

    id: str = ""
    count: int = 1
    state: str = "offline"
    partition: str = "main"
    type: str = "SSM"
    version: str | None = None
    status: str = "suspended"
    name: str = ""
    latitude: float | None = None
    longitude: float | None = None
    elevation: float | None = None
    metres: float = 1000.0
    attributes: dict[str, Any] = {}
    drop: list[str] = []


class Directions:
    """The operations on a story, by name."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._changes = world.changes
        self._operations: dict[str, Callable[[Order], list[str]]] = {
            "add": self._add,
            "remove": self._remove,
            "restore": self._restore,
            "flip": self._flip,
            "set_state": self._set_state,
            "firmware": self._firmware,
            "suspend": self._set_status,
            "set_status": self._set_status,
            "rename": self._rename,
            "rename_site": self._rename,
            "rename_organization": self._rename,
            "move": self._move,
            "set": self._set,
        }

    def obey(self, operation: str, details: dict[str, Any]) -> list[str]:
        """Do an operation and tell the ids it concerned. ValueError if it cannot be done."""
        if operation not in self._operations:
            raise ValueError(f"op must be one of {', '.join(self._operations)}.")
        try:
            order = msgspec.convert(details, Order)
        except msgspec.ValidationError as error:
            raise ValueError(f"{error}.") from None
        ids = self._operations[operation](order)
        self._changes.revision += 1
        return ids

    def turn(self, fault: Fault) -> None:
        """Something that happens to the story rather than to an answer."""
        now = self._world.clock.now()
        index = self._find(fault.id)[1] if fault.id else None
        if fault.kind == "corrected":
            self._changes.corrections.append(Correction(now, fault.report, index))
        elif fault.kind == "counter_reset":
            self._changes.resets.append((now, index))
        else:
            self._changes.rollovers.append(now)

    def _find(self, key: str) -> tuple[str, int]:
        """What an id belongs to. ValueError if to nothing."""
        for kind in _KINDS:
            index = self._world.collections[kind].index_of(key)
            if index is not None:
                return kind, index
        raise ValueError(f"id {key!r} belongs to nothing.")

    def _terminal(self, order: Order) -> int:
        kind, index = self._find(order.id)
        if kind != "terminals":
            raise ValueError(f"id {order.id!r} is no terminal.")
        return index

    def _add(self, order: Order) -> list[str]:
        """Terminals with products (but for spare ones); an id that is known comes back instead."""
        fleet = self._world.fleet
        if not 1 <= order.count <= 10_000 or (order.id and order.count > 1):
            raise ValueError("count must be from 1 to 10000, and 1 with an id.")
        if order.id and fleet.terminal_index(order.id) is not None:
            return self._restore(order)
        first = fleet.size + len(self._changes.additions)
        now = self._world.clock.now()
        self._changes.add([Addition(first + n, now, order.id or None) for n in range(order.count)])
        return [fleet.imei(first + n) for n in range(order.count)]

    def _remove(self, order: Order) -> list[str]:
        kind, index = self._find(order.id)
        self._changes.removed.setdefault(kind, set()).add(index)
        return [order.id]

    def _restore(self, order: Order) -> list[str]:
        kind, index = self._find(order.id)
        self._changes.removed.get(kind, set()).discard(index)
        return [order.id]

    def _flip(self, order: Order) -> list[str]:
        """From now on online if it is offline, and the other way round."""
        index, now = self._terminal(order), self._world.clock.now()
        was = self._world.life.state(index, now)
        return self._hold(order.id, index, "offline" if was == "online" else "online", now)

    def _set_state(self, order: Order) -> list[str]:
        return self._hold(order.id, self._terminal(order), order.state, self._world.clock.now())

    def _hold(self, key: str, index: int, state: str, now: float) -> list[str]:
        self._changes.states.setdefault(index, []).append((now, state))
        return [key]

    def _firmware(self, order: Order) -> list[str]:
        """A version of one component; without one, a version that it never had."""
        index = self._terminal(order)
        known = self._changes.firmware.setdefault(index, {})
        known[order.partition, order.type] = order.version or f"{order.type}_9.0.{self._changes.revision}"
        return [order.id]

    def _set_status(self, order: Order) -> list[str]:
        kind, index = self._find(order.id)
        if kind != "products":
            raise ValueError(f"id {order.id!r} is no product.")
        self._changes.statuses[index] = (order.status, self._world.clock.now())
        return [order.id]

    def _rename(self, order: Order) -> list[str]:
        kind, index = self._find(order.id)
        if not order.name:
            raise ValueError("name must not be empty.")
        self._changes.names[kind, index] = order.name
        return [order.id]

    def _move(self, order: Order) -> list[str]:
        """To a position, or some metres to the north; it stays there."""
        index, now = self._terminal(order), self._world.clock.now()
        was = self._world.life.position(index, now)
        north = order.metres / 111_320.0 if order.latitude is None else 0.0
        latitude = was.latitude + north if order.latitude is None else order.latitude
        longitude = was.longitude if order.longitude is None else order.longitude
        elevation = was.elevation if order.elevation is None else order.elevation
        self._changes.positions[index] = round(latitude, 6), round(longitude, 6), elevation
        return [order.id]

    def _set(self, order: Order) -> list[str]:
        """Any top-level attributes of any object, as they shall be shown; or not be shown."""
        kind, index = self._find(order.id)
        self._changes.attributes.setdefault((kind, index), {}).update(order.attributes)
        self._changes.dropped.setdefault((kind, index), set()).update(order.drop)
        return [order.id]
