"""What an answer of each call should contain, and which values are plausible.

These tables stand apart from the catalogue, because they say nothing about how an answer is read: they are no part of
a mapping fingerprint. An expected field that a configuration has taken out of the call's `map` is not expected.
Source: TMF639, TMF637, TMF677, TMF628; the attributes that the public client reads; the columns of the public
connector.
"""

import msgspec

from oneweb_bridge.decode.catalogue import Call

TIME = "time"
"""The expected member of a report that is no field: the time of a measurement."""
COMPONENTS = "components"
"""The expected member of a terminal's components that is no field of their record: at least one component."""

Alternatives = tuple[str, ...]
"""Fields of which one is enough; the first gives the name."""


class Expectation(msgspec.Struct, frozen=True):
    """What the records of one call have: `common` fields are in at least one of them, `general` ones in nearly all.

    Of the fields in `any_of`, one in the whole answer is enough.
    """

    common: tuple[Alternatives, ...] = ()
    general: tuple[Alternatives, ...] = ()
    any_of: Alternatives = ()

    def fields(self) -> tuple[Alternatives, ...]:
        """Everything that is expected, each with its alternatives."""
        return (*self.general, *self.common, *((self.any_of,) if self.any_of else ()))


class Range(msgspec.Struct, frozen=True):
    """The plausible values of a field, both ends included, in the unit that it is published in."""

    low: float
    high: float


def _each(*names: str) -> tuple[Alternatives, ...]:
    return tuple((name,) for name in names)


EXPECTATIONS: dict[str, Expectation] = {
    "user_terminals": Expectation(
        general=_each("name", "state", "latitude", "longitude"),
        common=_each("serial_number", "imsi", "hardware_version", "manufacturer", "party_id", "site_id", "last_seen"),
    ),
    "user_terminal_components": Expectation(general=_each(COMPONENTS)),
    "products": Expectation(
        general=_each("name"),
        common=(
            # Not its terminal: some APIs have that link at the terminal alone.
            *_each("status", "end_customer_id", "distribution_partner_id"),
            ("allowance_gb", "allowance_unlimited"),
            *_each("max_bandwidth_downlink_mbps", "max_bandwidth_uplink_mbps"),
        ),
    ),
    "organizations": Expectation(general=_each("name")),
    "sites": Expectation(general=_each("name"), common=_each("latitude", "longitude")),
    "ut_link_availability": Expectation(general=_each(TIME, "link_availability_pct")),
    "ut_signal_quality": Expectation(general=_each(TIME, "rsrp_dbm", "rssi_dbm", "sinr_db")),
    "ut_resource_state": Expectation(general=_each(TIME, "resource_state")),
    "ut_traffic": Expectation(
        general=_each(TIME, "cnx_tx_bytes", "cnx_rx_bytes", "wan_tx_bytes", "wan_rx_bytes"),
        common=_each("mgmt_tx_bytes", "mgmt_rx_bytes"),
    ),
    "ut_link_metrics": Expectation(general=_each(TIME)),
    "product_throughput": Expectation(
        general=_each(TIME),
        any_of=tuple(f"{name}_{way}_bps" for name in ("be", "ef", "af") for way in ("downlink", "uplink")),
    ),
    "usage_consumption": Expectation(
        general=(("used_gb",), ("remaining_gb", "remaining_unlimited")),
        common=_each("product_id", "entitlement_gb", "valid_from", "valid_until"),
    ),
}
"""Call -> what its answers have."""

_MAX_BYTES = 1e15
_MAX_GB = 100_000.0
_BANDWIDTH = Range(0, 10_000)

RANGES: dict[str, Range] = {
    "latitude": Range(-90, 90),
    "longitude": Range(-180, 360),
    "elevation_m": Range(-500, 15_000),
    "link_availability_pct": Range(0, 100),
    "packet_loss_pct": Range(0, 100),
    "latency_ms": Range(1, 5_000),
    "jitter_ms": Range(0, 5_000),
    "rsrp_dbm": Range(-140, -30),
    "rssi_dbm": Range(-140, -10),
    "sinr_db": Range(-30, 60),
    **{f"{side}_{way}_bytes": Range(0, _MAX_BYTES) for side in ("cnx", "mgmt", "wan") for way in ("tx", "rx")},
    **{f"{name}_{way}_bps": Range(0, 1e10) for name in ("be", "ef", "af") for way in ("downlink", "uplink")},
    "allowance_gb": Range(0, _MAX_GB),
    "overage_increment_gb": Range(0, _MAX_GB),
    "max_bandwidth_downlink_mbps": _BANDWIDTH,
    "max_bandwidth_uplink_mbps": _BANDWIDTH,
    "budgeted_amount_mbps": _BANDWIDTH,
    "min_antenna_gain_dbk": Range(-50, 50),
    "used_gb": Range(0, _MAX_GB),
    "remaining_gb": Range(-_MAX_GB, _MAX_GB),
    "current_balance_gb": Range(-_MAX_GB, _MAX_GB),
    "entitlement_gb": Range(0, _MAX_GB),
    "overage_blocks": Range(0, 100_000),
}
"""Field -> its plausible values. What lies outside is published all the same, counted, and told."""

MOSTLY_WHOLE = frozenset(("link_availability_pct",))
"""Percentages whose usual value is far above 1: where it is not, they are shares from 0 to 1."""
MAX_RATIO = 10
"""How many times what a product allows is no measurement any more, but another unit."""
LIMITS: dict[str, str] = {
    **{f"{name}_downlink_bps": "max_bandwidth_downlink_mbps" for name in ("be", "ef", "af")},
    **{f"{name}_uplink_bps": "max_bandwidth_uplink_mbps" for name in ("be", "ef", "af")},
    "entitlement_gb": "allowance_gb",
    "used_gb": "allowance_gb",
}
"""Field of a sample or of usage -> the field of its product that limits it."""
LIMIT_FACTORS: dict[str, float] = {name: 1e6 if name.endswith("_bps") else 1.0 for name in LIMITS}
"""How many units of the field are one of its limit."""
STEADY = frozenset(
    [name for name in RANGES if name.endswith(("_bps", "_bytes", "_ms", "_mbps"))]
    + ["allowance_gb", "entitlement_gb", "elevation_m"]
)
"""Fields whose usual magnitude in a fleet does not change a hundredfold from one poll to the next."""

INVENTORY: dict[str, str] = {"terminal": "user_terminals", "product": "products"}
"""Kind of record -> the call that lists all of it."""


def expectation_of(call: Call) -> Expectation:
    """What is expected of a call as it is configured: nothing of a field that its map does not have."""
    expected = EXPECTATIONS.get(call.id, Expectation())
    mapped = {field.name for field in call.fields} | {field.unlimited for field in call.fields} | {TIME}
    return Expectation(
        common=_kept(expected.common, mapped),
        general=_kept(expected.general, mapped),
        any_of=tuple(name for name in expected.any_of if name in mapped),
    )


def _kept(groups: tuple[Alternatives, ...], mapped: set[str]) -> tuple[Alternatives, ...]:
    return tuple(kept for group in groups if (kept := tuple(name for name in group if name in mapped)))
