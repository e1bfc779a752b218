"""In which zone times without an offset are: by how far the newest of them is from the API's clock. Pure."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from oneweb_bridge.decode.values import Unparseable, parse_time
from oneweb_bridge.explore.context import Context, Finding

_BARE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?")
_CURRENT_TIMES = (("user_terminals", "lastSeenDate"), ("usage_consumption", "effectiveDate"))
_QUARTER = 900_000


def zone_finding(context: Context) -> Finding | None:
    """What to say of times that do not name their offset; None when all do, or the configured zone is right."""
    bare = list(_newest(context))
    if not bare or not context.now:
        return None
    zone = ZoneInfo(context.config.mapping.timezone)
    ahead = round((max(parse_time(text, zone) or 0 for text in bare) - context.now) / _QUARTER) * _QUARTER
    if ahead == 0:
        return None
    # The configured zone is already counted in; what is left over comes on top of it.
    offset = datetime.fromtimestamp(context.now / 1000, zone).utcoffset() or timedelta()
    hours = (ahead / 3_600_000) + offset.total_seconds() / 3600
    if hours != int(hours) or abs(hours) > 12:
        return Finding(f"times have no offset and are {hours:g} hours ahead of UTC: set mapping.timezone to their zone")
    name = f"Etc/GMT{-int(hours):+d}" if hours else "UTC"
    text = (
        f"times have no offset and are {hours:+g} hours from UTC (better a zone with summer time, like Europe/Berlin)"
    )
    return Finding(text, {"mapping": {"timezone": name}})


def _newest(context: Context) -> Iterator[str]:
    """The newest time without offset of each list whose times are near the clock."""
    for call, member in _CURRENT_TIMES:
        times = [item[member] for item in context.items.get(call, ()) if _is_bare(item.get(member))]
        if times:
            yield max(times)


def _is_bare(value: Any) -> bool:
    try:
        return isinstance(value, str) and _BARE.fullmatch(value) is not None and parse_time(value) is not None
    except Unparseable:
        return False
