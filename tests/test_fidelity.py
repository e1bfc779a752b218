"""The same truth, whatever the form of the API: each uncertainty of the reference has its lines of YAML."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from oneweb_bridge.api import fetch
from oneweb_bridge.api.client import open_api
from oneweb_bridge.api.errors import NotFound
from oneweb_bridge.api.listing import ListingPage
from oneweb_bridge.decode.pages import decode_record
from oneweb_bridge.polling.compiled_call import compile_call
from tests import fidelity
from tests.fidelity_runs import BEGIN
from tests.fidelity_table import ROWS


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> fidelity.Seen:
    """What the bridge with its defaults knows of the default API."""
    return asyncio.run(fidelity.seen(fidelity.Row(row="", differs=""), tmp_path_factory.mktemp("truth")))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.row)
async def test_each_alternative_comes_to_the_same_truth(
    row: fidelity.Row, truth: fidelity.Seen, tmp_path: Path
) -> None:
    """With the row's lines, the bridge reads the row's API into the records and samples of the default one."""
    actual = await fidelity.seen(row, tmp_path)
    unlike = fidelity.differences(row, actual, fidelity.expected(row, truth))
    assert not unlike, "\n".join(unlike[:20])


def test_the_document_has_exactly_the_rows_that_are_tested() -> None:
    """docs/fidelity.md lists each row once, in order, and its YAML is what the test runs."""
    text = fidelity.DOCUMENT.read_text().partition(f"\n{BEGIN}")[0]
    assert fidelity.listed(text) == [row.row for row in ROWS]
    assert fidelity.snippets(text) == {row.row: row.lines for row in ROWS if row.lines}
    assert text == fidelity.document(ROWS), "python -m tests.fidelity writes it anew"


def test_every_uncertainty_of_the_reference_has_a_row() -> None:
    """Rows 1 to 32 of the reference's section 6 are all there."""
    assert {int(row.row.split()[0]) for row in ROWS} == set(range(1, 33))


@contextlib.asynccontextmanager
async def serving(answer: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    """An API that answers each request with what `answer` makes of it, as JSON."""

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(answer(request))

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def polled(url: str, lines: str, call: str, ids: tuple[str, ...] | None = None) -> list[ListingPage]:
    """What one fetch of a call gives."""
    config = fidelity.config_of(lines, url)
    plan = compile_call(config.polling[call], config)
    request = fetch.FetchRequest(call=plan.call, hasher=plan.hasher, salt=plan.salt, for_each=ids)
    async with open_api(config.api) as connection:
        return [page async for page in fetch.fetch_pages(connection, request)]


async def test_flat_component_rows_of_a_terminal_make_one_record_across_pages() -> None:
    """Each component a record of its own, a page break in the middle of a terminal: one record per terminal."""
    rows = [
        {"ut": {"imei": imei}, "partition": "Main", "type": kind, "version": f"{kind}-{imei}"}
        for imei in ("1", "2", "3")
        for kind in ("UT", "SSM", "CNX")
    ]

    def answer(request: web.Request) -> Any:
        offset = int(request.query["offset"])
        return rows[offset : offset + 4]

    lines = "polling: {user_terminal_components: {explode: rows, key: ut.imei, query: {}}}"
    async with serving(answer) as url:
        pages = await polled(url, lines, "user_terminal_components")
    config = fidelity.config_of(lines, url)
    plan = compile_call(config.polling["user_terminal_components"], config)
    readings = [
        plan.decode_record(id, decode_record(raw))
        for page in pages
        for id, raw in zip(page.ids, page.raws(), strict=True)
    ]
    assert {reading.id: reading.fields for reading in readings} == {
        imei: {f"main/{kind}": f"{kind}-{imei}" for kind in ("UT", "SSM", "CNX")} for imei in ("1", "2", "3")
    }


async def test_an_id_that_the_api_does_not_know_fails_no_other() -> None:
    """Of requests one by one, a 404 means nothing to show for that id; 404 for all of them means a wrong path."""

    def answer(request: web.Request) -> Any:
        if request.path.endswith("/9/traffic"):
            raise web.HTTPNotFound
        return [{"id": request.path.split("/")[-2], "measurement": []}]

    lines = 'polling: {ut_traffic: {path: "/ut/{ut_id}/traffic", for_each: user_terminals, page: {style: none}}}'
    async with serving(answer) as url:
        pages = await polled(url, lines, "ut_traffic", ("9", "1", "2"))
        assert [id for page in pages for id in page.ids] == ["1", "2"]
        with pytest.raises(NotFound):
            await polled(url, lines, "ut_traffic", ("9",))
