"""What an API may do otherwise without a line of configuration: refusals of one id, ids, jobs, tokens, messages."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import stamina
from aiohttp import web

from oneweb_bridge.api.answers import message_in
from oneweb_bridge.api.auth import parse_token
from oneweb_bridge.api.errors import BadAnswer, Unauthorized
from oneweb_bridge.api.fetch import FetchRequest, fetch_pages
from oneweb_bridge.api.listing import ListingPage
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.decode import record_hashes
from tests.polls import configured
from tests.test_api import Handler, against

SIGNAL = "ut_signal_quality"
TIME = "2025-06-17T13:40:07Z"
IDS = ("359235170006117", "359235170006118", "359235170006119")


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1, cap=True):
        yield


async def pages(
    handler: Handler, call: str = SIGNAL, ids: tuple[str, ...] | None = IDS, **settings: Any
) -> list[ListingPage]:
    """The pages of a listing that a small server answers."""
    each = {} if ids is None else {"path": "/ut/{ut_id}/report", "for_each": "user_terminals"}
    chosen = each | {"page": {"style": "none"}} | settings
    async with against(handler) as (server, connection):
        row = configured(server.url, polling={call: chosen}).polling[call]
        hasher, salt = record_hashes.record_hasher(row), record_hashes.Salt.of("a")
        request = FetchRequest(call=row, hasher=hasher, salt=salt, for_each=ids)
        return [page async for page in fetch_pages(connection, request)]


def by_id(answers: dict[str, Any]) -> Handler:
    """Answers a request by the id in its path: a status, or a body."""

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = answers[request.path.split("/")[2]]
        if isinstance(answer, int):
            return web.json_response({"message": "no"}, status=answer)
        return web.json_response(answer)

    return handle


ROW = {"timestamp": TIME, "rsrp": -40}


@pytest.mark.parametrize("status", [403, 404, 500, 503])
async def test_a_refusal_of_one_id_costs_its_own_rows_and_is_told(status: int) -> None:
    """One terminal that belongs to somebody else does not end the poll of all others."""
    listed = await pages(by_id({IDS[0]: [{"id": IDS[0]}], IDS[1]: status, IDS[2]: [{"id": IDS[2]}]}))
    assert [id for page in listed for id in page.ids] == [IDS[0], IDS[2]]
    assert sum(page.unanswered for page in listed) == 1
    assert any(IDS[1] in page.reason and str(status) in page.reason for page in listed)


async def test_no_content_for_one_id_is_no_refusal() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=204) if IDS[1] in request.path else web.json_response([{"id": IDS[0]}])

    listed = await pages(handle, ids=IDS[:2])
    assert [(page.ids, page.unanswered) for page in listed] == [([IDS[0]], 0), ([], 0)]


async def test_a_refusal_of_every_id_is_one_of_the_call() -> None:
    with pytest.raises(Unauthorized):
        await pages(by_id(dict.fromkeys(IDS, 403)))


@pytest.mark.parametrize(
    "body",
    [
        {"measurement": [ROW]},
        [ROW, {**ROW, "timestamp": "2025-06-17T13:50:07Z"}],
        [{"measurement": [ROW]}],
        {"items": [{"measurement": [ROW]}]},
        ROW,
    ],
)
async def test_an_id_that_the_body_does_not_have_is_that_of_the_request(body: Any) -> None:
    """An answer about one terminal need not repeat whose it is."""
    listed = await pages(by_id(dict.fromkeys(IDS, body)))
    assert [id for page in listed for id in page.ids] == list(IDS)
    decoded = json.loads(bytes(listed[0].raws()[0]))
    assert decoded["id"] == IDS[0]


async def test_usage_without_a_product_is_that_of_the_product_in_the_request() -> None:
    settings = {"path": "/usage/{product_id}", "for_each": "products"}
    body = [{"bucket": [{"id": "B1"}]}]
    listed = await pages(by_id({"SC-1": body}), "usage_consumption", ("SC-1",), **settings)
    assert json.loads(bytes(listed[0].raws()[0]))["product"] == [{"id": "SC-1"}]


def job(*looks: dict[str, Any]) -> Handler:
    """A report that must be requested: each look at it finds the next of these bodies."""
    left = list(looks)

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.json_response({"id": "J1", "state": "acknowledged"}, status=201)
        return web.json_response(left.pop(0))

    return handle


REPORT = {"items": [{"id": IDS[0], "measurement": [ROW]}]}


@pytest.mark.parametrize("member", ["state", "status", "jobState"])
async def test_a_job_is_waited_for_by_state_or_status(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TMF's jobs have a state, others a status: acknowledged and inProgress are no report yet."""
    monkeypatch.setattr("oneweb_bridge.api.report_jobs.FIRST_PAUSE_S", 0.0)
    looks = ({"id": "J1", member: "acknowledged"}, {"id": "J1", member: "inProgress"}, {member: "completed", **REPORT})
    listed = await pages(job(*looks), ids=None, fetch="request")
    assert [page.ids for page in listed] == [[IDS[0]]]


async def test_a_job_that_failed_fails_with_its_own_message() -> None:
    with pytest.raises(BadAnswer, match=r"the requested report failed \(too many terminals\)"):
        await pages(job({"id": "J1", "state": "failed", "message": "too many terminals"}), ids=None, fetch="request")


async def test_an_answer_to_the_request_that_is_the_report_is_read() -> None:
    """A server that makes small reports at once need not be asked a second time."""

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.method == "POST"
        return web.json_response(REPORT)

    assert [page.ids for page in await pages(handle, ids=None, fetch="request")] == [[IDS[0]]]


@pytest.mark.parametrize(
    "answer",
    [
        {"access_token": "abc", "expires_in": 60},
        {"accessToken": "abc", "expiresIn": "60"},
        {"token": "abc", "expires_in": 60},
        {"data": {"accessToken": "abc", "expires_in": 60}},
        {"token": {"access_token": "abc", "expires_in": 60.0}},
    ],
)
def test_a_token_is_found_under_any_common_name(answer: dict[str, Any]) -> None:
    granted = parse_token(json.dumps(answer).encode())
    assert (granted.access_token, granted.expires_in) == ("abc", 60)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<", b'{"token": "a b"}', b'{"token": 5}', b'{"data": {"data": {}}}'])
def test_an_answer_without_a_token_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        parse_token(body)


@pytest.mark.parametrize(
    "body",
    [
        {"code": "60", "message": "Bad Request", "reason": "startDateTime must have seconds"},
        {"error": {"code": 400, "message": "startDateTime must have seconds"}},
        {"errors": [{"title": "Bad Request", "detail": "startDateTime must have seconds"}]},
        [{"code": 1, "message": "startDateTime must have seconds"}],
        {"fault": {"faultstring": "startDateTime must have seconds", "detail": {"errorcode": "x"}}},
    ],
)
def test_the_telling_message_of_an_error_body_is_in_the_sentence(body: Any) -> None:
    assert message_in(json.dumps(body).encode(), Masks()) == " (startDateTime must have seconds)"
