"""Which Edge Node a Device belongs to. Pure, and not shared."""

from collections import Counter
from collections.abc import Iterable, Mapping


class Placement:
    """The number of the Edge Node of each Device; it never changes while the Device exists."""

    def __init__(self, placed: Mapping[str, int], limit: int) -> None:
        """`limit` is how many Devices an Edge Node has at most when another one is placed there."""
        self._placed = dict(placed)
        self._limit = limit
        self._counts = Counter(self._placed.values())

    def number_of(self, device: str) -> int | None:
        """The Edge Node of a Device; None while it has none."""
        return self._placed.get(device)

    def devices(self) -> list[str]:
        """All Devices that have an Edge Node."""
        return list(self._placed)

    def devices_of(self, number: int) -> list[str]:
        """The Devices of an Edge Node."""
        return [device for device, own_number in self._placed.items() if own_number == number]

    def place(self, device: str) -> int:
        """Places a Device on the first Edge Node with room. Returns its number; that of one that has a place."""
        if device in self._placed:
            return self._placed[device]
        number = 1
        while self._counts[number] >= self._limit:
            number += 1
        self._placed[device] = number
        self._counts[number] += 1
        return number

    def plan(self, devices: Iterable[str]) -> list[tuple[str, int]]:
        """Where Devices that have no place would be placed, one after the other. Nothing is placed by it."""
        planned = Placement(self._placed, self._limit)
        return [(device, planned.place(device)) for device in devices if device not in self._placed]

    def put(self, placed: Iterable[tuple[str, int]]) -> None:
        """Places Devices as they were planned."""
        for device, number in placed:
            self.free(device)
            self._placed[device] = number
            self._counts[number] += 1

    def free(self, device: str) -> None:
        """Frees the place of a Device that is dead."""
        number = self._placed.pop(device, None)
        if number is not None:
            self._counts[number] -= 1
