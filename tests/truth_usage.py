"""Usage as the API shows it against what was heard of it; the checker's part for the call without events. Pure."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests import truth

PATH = "/usageConsumption/v3/usageConsumptionReport"
Json = dict[str, Any]
Version = tuple[str, str]
"""A topic, and what it says of the bucket as sorted JSON."""
_PUBLISHED_FIELDS = (
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
        record: Json = {"bucket_id": bucket["id"], "remaining_unlimited": unlimited}
        if not unlimited:
            record["remaining_gb"] = float(balance["remainingValue"]["amount"])
        for product in bucket.get("product", ())[:1]:
            record["product_id"] = product["id"]
        for counter in bucket["bucketCounter"]:
            name, amount = _COUNTED[counter["counterType"]], counter["value"]["amount"]
            if counter["level"] == "global":
                record[name] = int(amount) if name == "overage_blocks" else float(amount)
        yield _version(record, base)


def products(report: Json) -> Iterable[str]:
    """The ids of the products that a report names for its buckets."""
    return (bucket["product"][0]["id"] for bucket in report.get("bucket", ()) if bucket.get("product"))


def _version(body: Mapping[str, Any], base: str) -> Version:
    place = f"{base}/usage/" if "product_id" not in body else f"{base}/product/{truth.level(body['product_id'])}/usage/"
    known = {name: body[name] for name in _PUBLISHED_FIELDS if name in body}
    return place + truth.level(str(body["bucket_id"])), json.dumps(known, sort_keys=True)


def judge(
    shown: Iterable[tuple[Json, bool]],
    messages: Iterable[tuple[str, bytes, bool]],
    base: str,
    *,
    whole: bool,
) -> list[str]:
    """What was invented, lost, or went back. `shown` are reports, each with whether it must have been published."""
    possible: set[Version] = set()
    certain: set[Version] = set()
    for report, must_come in shown:
        versions = set(buckets(report, base))
        possible |= versions
        certain |= versions if must_come else set()
    published: set[Version] = set()
    newest: dict[str, int] = {}
    wrong: list[str] = []
    for topic, payload, _ in messages:
        levels = topic.removeprefix(f"{base}/").split("/")
        if not payload or "usage" not in (levels[0], levels[-2]) or "history" in levels[:3]:
            continue
        body = json.loads(payload)
        published.add((topic, _version(body, base)[1]))
        if body["ts"] < newest.get(topic, 0):
            wrong.append(f"step back: {topic} says {body['time']} after a later one")
        newest[topic] = body["ts"]
    wrong += [f"phantom sample: {version}" for version in sorted(published - possible)]
    return wrong + ([f"sample missing: {version}" for version in sorted(certain - published)] if whole else [])
