"""The tariffs: what a product allows and how fast it is."""

from typing import Any

import msgspec

from .draws import About, between, mix


class Plan(msgspec.Struct, frozen=True):
    """A tariff. `allowance` is GB in a bill cycle, None for unlimited."""

    name: str
    description: str
    bucket_name: str
    allowance: int | None
    increment: int
    downlink: int
    uplink: int
    grade: str
    is_bundle: bool = False
    is_pooled: bool = False
    is_metered: bool = True
    classes: tuple[str, ...] = ("bestEffort",)


PLANS = (
    Plan(
        "OneWeb Maritime",
        "Maritime plan with monthly allowance",
        "Maritime 300 GB monthly",
        300,
        30,
        40,
        15,
        "Silver",
    ),
    Plan(
        "OneWeb Premium",
        "Uncapped plan for fixed sites",
        "Premium unlimited data",
        None,
        25,
        50,
        20,
        "Gold",
        is_bundle=True,
        classes=("expeditedForwarding", "bestEffort"),
    ),
    Plan(
        "OneWeb Business",
        "Business plan, pooled allowance",
        "Business pooled allowance",
        150,
        15,
        30,
        10,
        "Silver",
        is_pooled=True,
    ),
    Plan(
        "OneWeb Government",
        "Assured rates for public bodies",
        "Government 500 GB monthly",
        500,
        50,
        100,
        30,
        "Platinum",
        classes=("expeditedForwarding", "assuredForwarding", "bestEffort"),
    ),
    Plan("OneWeb Backhaul", "Community backhaul, not metered", "", 1000, 100, 150, 30, "Gold", is_metered=False),
)


def plan_of(index: int) -> Plan:
    """The tariff of a product."""
    return PLANS[index % len(PLANS)]


def characteristics(plan: Plan, seed: int, index: int) -> list[dict[str, Any]]:
    """The characteristics of a product; every value is a string."""
    is_static = mix(seed, About.FIXED, index, 3) % 3 > 0
    gain = between(8, 10, seed, About.FIXED, index, 4)
    valued = [
        (
            "allowance",
            "Unlimited" if plan.allowance is None else str(plan.allowance),
            plan.allowance and "GB",
        ),
        ("overageIncrement", str(plan.increment), "GB"),
        ("maxBandwidthDownlink", str(plan.downlink), "Mbps"),
        ("maxBandwidthUplink", str(plan.uplink), "Mbps"),
        ("budgetedAmount", str(plan.downlink + 5), "Mbps"),
        ("minAntennaGain", f"{round(gain * 2) / 2:g}", "dB/K"),
        *([("ipStaticAddress", f"192.0.2.{index % 253 + 1}", None)] if is_static else []),
        ("ipAddressingType", "Static" if is_static else "Dynamic", None),
        ("serviceGrade", plan.grade, None),
    ]
    return [
        {"name": name, "value": value, "unit": unit} if unit else {"name": name, "value": value}
        for name, value, unit in valued
    ]
