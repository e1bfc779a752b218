"""What the answers of the API are replaced by, or spoiled with, in rounds of the campaign."""

from typing import Any

Faults = tuple[tuple[str, dict[str, Any]], ...]
NONSENSE: Faults = (
    ("html", {}),
    ("empty_body", {}),
    ("null", {}),
    ("object", {}),
    ("empty_list", {}),
    ("nan", {}),
    ("deep", {"depth": 20_000}),
    ("not_utf8", {}),
    ("bom", {}),
    ("content_type", {"value": "text/plain"}),
    ("redirect", {"host": "127.0.0.2:9"}),
    ("number_imei", {"share": 1.0}),
    ("unknown_attributes", {"share": 1.0}),
)
LIES: Faults = (
    ("page_repeat", {}),
    ("page_missing", {}),
    ("total_changes", {}),
    ("missing_key", {"share": 0.5}),
    ("drop_items", {"share": 0.5}),
    ("drop_items", {"share": 1.0}),
)
STATUS: Faults = tuple(("status", {"status": status}) for status in (400, 404, 408, 500, 502, 503, 504))
LIMITS: Faults = tuple(
    ("status", {"status": 429, "headers": {"Retry-After": text}})
    for text in ("0", "2", "-5", "Tue, 15 Nov 1994 08:12:31 GMT")
)
FLOODS: Faults = (
    ("gzip_bomb", {"megabytes": 300.0}),
    ("big", {"megabytes": 30.0}),
    ("slow", {"rate": 400.0}),
    ("hang", {"seconds": 20.0}),
)
PAGE_LIMITS = {"user_terminals": 8, "products": 8, "organizations": 5, "sites": 5, "ut_signal_quality": 5}
"""Records of a page, so that the last page of terminals and of products has fewer than what is held when it is lost."""
PAGED = {call: {"page": {"limit": limit}} for call, limit in PAGE_LIMITS.items()}
