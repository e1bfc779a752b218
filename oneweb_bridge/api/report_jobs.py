"""Reports that have to be requested first: their URL, and when they are ready.

Source: TMF630 and TMF628, which call what is requested a job or a task with a `state` or a `status`.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from oneweb_bridge.api import headers
from oneweb_bridge.api.answers import Answer, message_in
from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.errors import BadAnswer
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.listings import listed_member
from oneweb_bridge.decode.pages import value_at
from oneweb_bridge.decode.paths import fold_name
from oneweb_bridge.model.backoff import nth_pause

MAX_CHECKS = 60
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
_WORKING = frozenset(
    ("pending", "inprogress", "acknowledged", "running", "queued", "accepted", "submitted", "scheduled", "processing")
)
_FAILED = frozenset(("failed", "cancelled", "canceled", "rejected", "aborted", "error", "terminatedwitherror"))
_STATES = ("state", "status", "jobState", "jobStatus")


async def wait_until_ready(api: ApiClient, call: Call, path: str, params: Mapping[str, str]) -> Answer:
    """The answer of a requested report once it is ready, polled with growing pauses. Raises ApiError."""
    for check in range(MAX_CHECKS):
        answer = await api.get(path, params, call.empty_status)
        states = _job_states(answer)
        if states & _FAILED:
            raise BadAnswer(f"{path}: the requested report failed{message_in(answer.body, api.masks)}", answer.body)
        if answer.status != 202 and not states & _WORKING:
            return answer
        await asyncio.sleep(nth_pause(FIRST_PAUSE_S, MAX_PAUSE_S, check))
    raise BadAnswer(f"{path}: the requested report was not ready after {MAX_CHECKS} checks")


def _job_states(answer: Answer) -> set[str]:
    """The states of the job in an answer, under `state` or `status`; none where it is a report."""
    if is_report(answer):
        return set()
    states = [value_at(answer.body, name) for name in _STATES]
    return {fold_name(state) for state in states if isinstance(state, str) and len(state) <= MAX_STATE_CHARS}


MAX_STATE_CHARS = 40


def is_report(answer: Answer) -> bool:
    """Whether an answer has the rows of a report in it, and not a job that makes it."""
    if answer.status not in (200, 206) or answer.headers.get("Location") is not None:
        return False
    begin = answer.body.lstrip()[:1]
    if begin == b"[":
        return True
    if begin != b"{":
        return False
    try:
        members = msgspec.json.decode(answer.body)
    except (ValueError, RecursionError):
        return False
    return listed_member(members, lambda value: list if isinstance(value, list) else dict) is not None


def report_url(answer: Answer, url: str) -> str:
    """The URL of a requested report. Raises BadAnswer for another server, which would get the credentials."""
    url = answer.url or url
    location = answer.headers.get("Location")
    if location is None:
        id = value_at(answer.body, "id")
        if not isinstance(id, (str, int)):
            raise BadAnswer(f"{url}: the requested report has neither a Location header nor an id", answer.body)
        location = f"{url}/{quote(str(id), safe='')}"
    try:
        location = headers.resolve(url, location)
        is_elsewhere = headers.origin(location) != headers.origin(url)
    except ValueError:
        raise BadAnswer(f"{url}: the requested report has no readable address", answer.body) from None
    if is_elsewhere:
        raise BadAnswer(f"{url}: the requested report is on another server, which is not asked")
    return location
