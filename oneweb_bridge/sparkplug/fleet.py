"""Which Devices there are, and which terminal, products and usage buckets each one has. Pure, and not shared.

A terminal is a Device, and its products and their usage are in it. A product whose record names no known terminal is a
Device of its own, and usage without a known product is in one Device for all of it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from oneweb_bridge.model.records import Row
from oneweb_bridge.mqtt.topics import cleared_names, encode_id

USAGE_DEVICE = "_usage"
_PRODUCT_DEVICE = "_product-"
STRUCTURAL = frozenset(("added", "changed", "removed", "usage", "clear"))
"""The types of rows by which what a Device has may change."""


class DeviceParts(msgspec.Struct, frozen=True):
    """What a Device has: the IMEI of a terminal, products, and buckets with the product in whose folder each is."""

    imei: str | None = None
    products: tuple[str, ...] = ()
    buckets: Mapping[str, str | None] = {}

    def __bool__(self) -> bool:
        return self.imei is not None or bool(self.products) or bool(self.buckets)


class _ProductRecord(msgspec.Struct, frozen=True):
    imei: Any = None


class _EventBody(msgspec.Struct, frozen=True):
    record: _ProductRecord = _ProductRecord()


_decode_product_event = msgspec.json.Decoder(_EventBody).decode


class Fleet:
    """The Devices of the records that there are."""

    def __init__(
        self,
        terminals: Iterable[str] = (),
        products: Iterable[tuple[str, str | None]] = (),
        buckets: Iterable[tuple[str, str | None]] = (),
    ) -> None:
        """`products` with the IMEI that the record of each names, `buckets` with the product of each."""
        self._terminals: dict[str, str] = {}
        """Device -> IMEI."""
        self._imei_of: dict[str, str | None] = {}
        self._products_of: dict[str, dict[str, None]] = {}
        """IMEI -> the products whose records name it, whether or not there is such a terminal."""
        self._product_of: dict[str, str | None] = {}
        self._buckets_of: dict[str | None, dict[str, None]] = {}
        self._single_products: dict[str, str] = {}
        """The Device that a product would be by itself -> its id."""
        for imei in terminals:
            self._terminals[encode_id(imei)] = imei
        for product, named_imei in products:
            self._set_product(product, named_imei)
        for bucket, named_product in buckets:
            self._set_bucket(bucket, named_product)

    # ── what there is ──────────────────────────────────────────────────────────────────────────

    def devices(self) -> list[str]:
        """All Devices: terminals, products without one, usage without a product."""
        singles = [
            device for device, product in self._single_products.items() if self.device_of_product(product) == device
        ]
        return [*self._terminals, *singles, *((USAGE_DEVICE,) if self._unplaced_buckets() else ())]

    def has(self, device: str) -> bool:
        """Whether there is anything of a Device."""
        return bool(self.parts_of(device))

    def parts_of(self, device: str) -> DeviceParts:
        """What a Device has; empty parts of one that is not there."""
        if device == USAGE_DEVICE:
            return DeviceParts(buckets=dict.fromkeys(self._unplaced_buckets()))
        imei = self._terminals.get(device)
        if imei is not None:
            products = tuple(self._products_of.get(imei, ()))
        else:
            product = self._single_products.get(device)
            products = (product,) if product is not None and self.device_of_product(product) == device else ()
        buckets = {bucket: product for product in products for bucket in self._buckets_of.get(product, ())}
        return DeviceParts(imei, products, buckets)

    def device_of_product(self, product: str) -> str | None:
        """The Device in which a product is; None for an unknown product."""
        if product not in self._imei_of:
            return None
        imei = self._imei_of[product]
        device = None if imei is None else encode_id(imei)
        return device if device in self._terminals else _PRODUCT_DEVICE + encode_id(product)

    def device_of(self, row: Row) -> str | None:
        """The Device that a row tells something of; None when there is none now."""
        if row.entity == "terminal":
            device = encode_id(row.id)
            return device if device in self._terminals else None
        if row.what in ("usage", "clear"):
            return self._device_of_bucket(row.name if row.entity == "product" else row.id)
        return self.device_of_product(row.id) if row.entity == "product" else None

    def is_placed(self, product: str | None) -> bool:
        """Whether a usage bucket of this product is in the folder of that product."""
        return product in self._imei_of

    def _device_of_bucket(self, bucket: str) -> str | None:
        if bucket not in self._product_of:
            return None
        product = self._product_of[bucket]
        return (None if product is None else self.device_of_product(product)) or USAGE_DEVICE

    def _unplaced_buckets(self) -> list[str]:
        return [
            bucket
            for product, buckets in self._buckets_of.items()
            if product not in self._imei_of
            for bucket in buckets
        ]

    # ── what changes ───────────────────────────────────────────────────────────────────────────

    def apply(self, row: Row) -> list[str]:
        """Takes a row of the journal. Returns the Devices that have other parts now, those that lost some first."""
        if row.what not in STRUCTURAL or row.entity not in ("terminal", "product", "usage"):
            return []
        products, buckets = self._concerned(row)
        before = self._places(products, buckets)
        is_terminal = row.entity == "terminal"
        known = encode_id(row.id) in self._terminals
        self._take(row)
        after = self._places(products, buckets)
        losing = [before[key] for key in before if before[key] != after[key]]
        gaining = [after[key] for key in after if before[key] != after[key]]
        own = [encode_id(row.id)] if is_terminal and known != (encode_id(row.id) in self._terminals) else []
        affected = [*own, *losing, *gaining] if row.what == "removed" else [*losing, *gaining, *own]
        return list(dict.fromkeys(device for device in affected if device is not None))

    def _concerned(self, row: Row) -> tuple[list[str], list[str]]:
        """The products and the buckets whose Device a row may change."""
        if row.what in ("usage", "clear"):
            return [], [row.name if row.entity == "product" else row.id]
        products = list(self._products_of.get(row.id, ())) if row.entity == "terminal" else [row.id]
        return products, [bucket for product in products for bucket in self._buckets_of.get(product, ())]

    def _places(self, products: list[str], buckets: list[str]) -> dict[tuple[str, str], str | None]:
        places: dict[tuple[str, str], str | None] = {("product", id): self.device_of_product(id) for id in products}
        return places | {("bucket", id): self._device_of_bucket(id) for id in buckets}

    def _take(self, row: Row) -> None:
        match row.entity, row.what:
            case "terminal", "removed":
                self._terminals.pop(encode_id(row.id), None)
            case "terminal", _:
                self._terminals[encode_id(row.id)] = row.id
            case _, "usage":
                bucket, product = (row.name, row.id) if row.entity == "product" else (row.id, None)
                self._set_bucket(bucket, product)
            case _, "clear":
                self._clear_bucket(row)
            case "product", "removed":
                self._forget_product(row.id)
            case "product", _:
                self._set_product(row.id, _decode_product_event(row.body).record.imei)

    def _set_product(self, product: str, imei: str | None) -> None:
        self._forget_product(product)
        # The configuration may give it another type; then it names nobody.
        imei = imei if isinstance(imei, str) else None
        self._imei_of[product] = imei
        self._single_products[_PRODUCT_DEVICE + encode_id(product)] = product
        if imei is not None:
            self._products_of.setdefault(imei, {})[product] = None

    def _forget_product(self, product: str) -> None:
        imei = self._imei_of.pop(product, None)
        self._single_products.pop(_PRODUCT_DEVICE + encode_id(product), None)
        if imei is not None and imei in self._products_of:
            self._products_of[imei].pop(product, None)
            if not self._products_of[imei]:
                del self._products_of[imei]

    def _set_bucket(self, bucket: str, product: str | None) -> None:
        self._forget_bucket(bucket)
        self._product_of[bucket] = product
        self._buckets_of.setdefault(product, {})[bucket] = None

    def _clear_bucket(self, row: Row) -> None:
        """The topic of a bucket was cleared: it is gone, or its next row names another product."""
        if "usage" in cleared_names(row):
            self._forget_bucket(row.name if row.entity == "product" else row.id)

    def _forget_bucket(self, bucket: str) -> None:
        product = self._product_of.pop(bucket, None)
        if bucket in self._buckets_of.get(product, {}):
            del self._buckets_of[product][bucket]
            if not self._buckets_of[product]:
                del self._buckets_of[product]
