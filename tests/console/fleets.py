"""Fleets that no simulator tells, as the API would answer them."""

import random
from typing import Any

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "=cmd()|' /C calc'!A0",
    "x" * 10_000,
    "\u202egnp.exe \u05d0\u05d1\u05d2",
    '"><script>alert(1)</script>',
    "{{constructor}} ${alert(1)}",
)
NOW_MS = 1_795_900_000_000


def make_row(number: int, chance: random.Random) -> dict[str, Any]:
    """A terminal; of every seventh a value is not known."""
    known = number % 7 != 0
    return {
        "imei": f"{359235170000000 + number}",
        "name": f"Vessel {number}",
        "state": "offline" if number % 9 == 0 else "online",
        "seen_ts": NOW_MS - chance.randrange(10**7),
        "sinr_db": round(chance.uniform(-3, 16), 1) if known else None,
        "sinr_ts": NOW_MS - 60_000,
        "link_availability_pct": round(chance.uniform(90, 100), 2) if known else None,
        "availability_ts": NOW_MS - 60_000,
        "bucket_id": f"{number}-1",
        "used_pct": round(chance.uniform(0, 130), 2) if known else None,
        "overage_blocks": 0,
        "forecast_status": "ok" if known else "not_enough_data",
        "exhausted_ts": NOW_MS + chance.randrange(10**9) if known else None,
        "product_id": f"SC-{number}",
        "product": "Maritime",
        "site_id": f"SITE-{number % 50}",
        "site": f"Site {number % 50}",
        "end_customer_id": f"ACC-{number % 5}",
        "end_customer": f"Customer {number % 5}",
        "distribution_partner_id": "ACC-100",
        "distribution_partner": "Partner",
        "latitude": chance.uniform(-60, 70),
        "longitude": chance.uniform(-180, 180),
    }


def make_rows(count: int) -> list[dict[str, Any]]:
    """A fleet whose first terminals have hostile names, which are customers and sites too."""
    chance = random.Random(1)
    rows = [make_row(number, chance) for number in range(count)]
    for row, name in zip(rows, HOSTILE, strict=False):
        row |= {"name": name, "end_customer": name, "site": name, "end_customer_id": name[:40]}
    return rows


def make_answer(rows: list[dict[str, Any]], seq: str) -> dict[str, Any]:
    """As `GET fleet` answers."""
    return {"seq": seq, "columns": list(rows[0]), "rows": [list(row.values()) for row in rows]}
