"""Usage as the API shows it against what was heard of it; the checker's part for the call without events. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests import truth

PATH = "/usageConsumption/v3/usageConsumptionReport"
Json = dict[str, Any]
Version = tuple[str, str]
"""A topic, and what it says of the bucket as sorted JSON."""
_SAID = (
    "bucket_id",
    "product_id",
    "used_gb",
    "entitlement_gb",
    "remaining_gb",
    "remaining_unlimited",
    "overage_blocks",
)
_COUNTED = {"usage": "used_gb", "entitlement": "entitlement_gb", "overage": "overage_blocks"}


def buckets(report: Json, base: str) -> Iterable[Version]:
    """The buckets of one report."""
    for bucket in report.get("bucket", ()):
        (balance,) = bucket["bucketBalance"]
        unlimited = balance["remainingValueName"] == "Unlimited"
        said: Json = {"bucket_id": bucket["id"], "remaining_unlimited": unlimited}
        if not unlimited:
            said["remaining_gb"] = float(balance["remainingValue"]["amount"])
        for product in bucket.get("product", ())[:1]:
            said["product_id"] = product["id"]
        for counter in bucket["bucketCounter"]:
            name, amount = _COUNTED[counter["counterType"]], counter["value"]["amount"]
            if counter["level"] == "global":
                said[name] = int(amount) if name == "overage_blocks" else float(amount)
        yield _version(said, base)


def _version(said: Mapping[str, Any], base: str) -> Version:
    place = f"{base}/usage/" if "product_id" not in said else f"{base}/product/{truth.level(said['product_id'])}/usage/"
    known = {name: said[name] for name in _SAID if name in said}
    return place + truth.level(str(said["bucket_id"])), json.dumps(known, sort_keys=True)


def judge(
    shown: Iterable[tuple[Sequence[Json], bool]],
    heard: Iterable[tuple[str, bytes, bool]],
    base: str,
    *,
    whole: bool,
) -> list[str]:
    """What was invented, lost, or went back. `shown` are complete listings, each with whether it was accepted."""
    possible: set[Version] = set()
    certain: set[Version] = set()
    for reports, accepted in shown:
        versions = {version for report in reports for version in buckets(report, base)}
        possible |= versions
        certain |= versions if accepted else set()
    told: set[Version] = set()
    newest: dict[str, int] = {}
    wrong: list[str] = []
    for topic, payload, _ in heard:
        levels = topic.removeprefix(f"{base}/").split("/")
        if not payload or "usage" not in (levels[0], levels[-2]) or "history" in levels[:3]:
            continue
        said = json.loads(payload)
        told.add((topic, _version(said, base)[1]))
        if said["ts"] < newest.get(topic, 0):
            wrong.append(f"step back: {topic} says {said['time']} after a later one")
        newest[topic] = said["ts"]
    wrong += [f"phantom sample: {version}" for version in sorted(told - possible)]
    return wrong + ([f"sample missing: {version}" for version in sorted(certain - told)] if whole else [])
