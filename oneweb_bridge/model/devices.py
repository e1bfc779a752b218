"""What is stored of a Device, as the store hands it to the outlet that speaks of Devices. Pure."""

import msgspec


class TimedDoc(msgspec.Struct, frozen=True, gc=False):
    """A stored record, and the time of its last event in ms since the epoch."""

    doc: bytes
    ts: int


class NewestSample(msgspec.Struct, frozen=True, gc=False):
    """The newest sample of a report and id. `value_types` has the values that any of its samples has had."""

    report: str
    id: str
    doc: bytes
    value_types: str


class DeviceContent(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a Device when the journal ends at row `head`."""

    head: int
    records: dict[tuple[str, str], TimedDoc] = {}
    """Kind and id -> record: the terminal with its components and relations, products, usage."""
    samples: list[NewestSample] = []


class FleetIds(msgspec.Struct, frozen=True):
    """Which records there are when the journal ends at row `head`; products with their IMEI, buckets with product."""

    head: int
    terminals: list[str]
    products: list[tuple[str, str | None]]
    buckets: list[tuple[str, str | None]]
