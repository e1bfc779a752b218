"""`oneweb-bridge explore`: tries each API call with a few read-only requests and says what to change in bridge.yaml.

What is asked is here; what it means is in `findings`, and how it is said in `report`.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from oneweb_bridge.api.answers import Answer
from oneweb_bridge.api.client import ApiClient, open_api
from oneweb_bridge.api.errors import ApiError, NotFound, RateLimited, Unauthorized, Unavailable
from oneweb_bridge.api.headers import agreed_number, next_pages
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import require_credentials
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.sizes import TooMuch, check_depth, check_size
from oneweb_bridge.explore import findings, pages, redaction, report, spans
from oneweb_bridge.explore.evidence import Ended, Evidence, Found, Paging, Reply, Span, located

Write = Callable[[str], None]


async def explore(config: Config, write: Write, save: Path | None = None, masks: Masks | None = None) -> bool:
    """Writes what was found. True when all enabled calls could be reached. Raises ConfigError without credentials.

    `masks` learn the token that the API may give, so that `write` can hide it.
    """
    require_credentials(config)
    masks = masks or Masks()
    async with _signed_in(config, write, masks) as (connection, changes):
        if connection is None:
            return False
        look = Look(connection)
        seen = []
        for call in config.polling.values():
            _show_progress(f"asking {call.id} …")
            seen.append(await look.at(call))
        _show_progress("")
    found = findings.judged(seen, config, changes)
    for line in report.lines(seen, found):
        write(line)
    if save is not None:
        _save(seen, save, write, masks)
    return all(evidence.reply.ended in ("ok", "skipped") for evidence in seen if evidence.call.enabled)


def _show_progress(said: str) -> None:
    """Writes over the last line of a terminal; nothing in a pipe."""
    if sys.stderr.isatty():
        print(f"\r\033[K{said}", end="", file=sys.stderr, flush=True)


@contextlib.asynccontextmanager
async def _signed_in(
    config: Config, write: Write, masks: Masks
) -> AsyncIterator[tuple[ApiClient | None, dict[str, Any]]]:
    """A connection whose credentials were accepted, and the change that it took; None when they were not."""
    headers = replace(config.api, auth=replace(config.api.auth, style="headers"))
    ways: list[tuple[Any, dict[str, Any]]] = [(config.api, {})]
    if config.api.auth.style == "basic":
        ways.append((headers, {"api": {"auth": {"style": "headers"}}}))
    for settings, changes in ways:
        async with open_api(settings, masks) as connection:
            try:
                await connection.hello()
            except Unauthorized as error:
                _say(write, "sign-in", f"refused with auth.style {settings.auth.style}: {error}")
                continue
            except ApiError as error:
                advice = "Check api.base_url, api.hello.path, api.proxy and api.ca_file"
                _say(write, "sign-in", f"failed: {error}. {advice}")
                break
            said = f"{settings.base_url} accepts the credentials (auth.style {settings.auth.style})"
            _say(write, "sign-in", said)
            yield connection, changes
            return
    _say(write, "", "nothing else was asked. Check api.client_id, api.client_secret and api.auth.style")
    yield None, {}


def _say(write: Write, name: str, said: str) -> None:
    for line in report.entry(name, said):
        write(line)


class Look:
    """Looks at one call after the other, and begins with what worked before."""

    def __init__(self, connection: ApiClient) -> None:
        self._api = connection
        self._page: dict[str, Any] = {}
        self._unpaged = False
        self._span: Span | None = None
        self._ids: dict[str, str] = {}

    async def at(self, call: Call) -> Evidence:
        """All that a few requests show of a call."""
        if call.fetch == "request":
            return Evidence(call=call, reply=Reply(ended="skipped"))
        params = pages.first_params(replace(call.page, **self._page))
        seen = Evidence(call=call, reply=await self._ask(call, params))
        if call.reads == "report":
            await self._look_at_span(seen, params)
            await self._look_one_by_one(seen, params)
        if call.reads == "components":
            await self._look_elsewhere(seen, params)
        seen.found = located(seen.reply.body)
        if seen.reply.ended == "ok" and seen.found is not None:
            seen.paging = await self._paging(seen, seen.found)
            self._remember_ids(call, seen.found)
        return seen

    async def _ask(self, call: Call, params: Mapping[str, str], path: str = "") -> Reply:
        asked = {**call.query, **params}
        path = path or call.path
        each = {"user_terminals": "{ut_id}", "products": "{product_id}"}.get(call.for_each or "", "")
        if each:
            id = self._ids.get(call.for_each or "", "")
            path = path.replace(each, quote(id, safe=""))
            asked = {name: said.replace(each, id) for name, said in asked.items()}
        try:
            answer = await self._patiently(path, asked, call.empty_status)
        except ApiError as error:
            return Reply(ended=_ended(error), said=str(error), params=asked)
        try:
            check_size(answer.body)
            check_depth(answer.body)
            body = msgspec.json.decode(answer.body)
        except TooMuch as error:
            return Reply(ended="odd", said=f"{path} answered with {error}: ask for less", params=asked)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Reply(ended="odd", said=f"{path} answered with something that is not JSON", params=asked)
        return Reply(
            ended="ok",
            params=asked,
            body=body,
            total=agreed_number(answer.lines(call.page.total_header)),
            next_page=next(iter(next_pages(answer.lines("Link"), answer.url)[0]), None),
            time=answer.time,
        )

    async def _patiently(self, path: str, asked: Mapping[str, str], empty_status: Collection[int]) -> Answer:
        """The answer, after one pause where the API asks for one that people would wait for."""
        try:
            return await self._api.get(path, asked, empty_status)
        except RateLimited as error:
            if error.pause > _PATIENCE:
                raise
            await asyncio.sleep(error.pause)
        return await self._api.get(path, asked, empty_status)

    def _remember_ids(self, call: Call, found: Found) -> None:
        ids = [str(item["id"]) for item in found.items if isinstance(item, dict) and item.get("id")]
        self._ids.update({call.id: ids[0]} if ids else {})

    # ── pages ──────────────────────────────────────────────────────────────────────────────────

    async def _paging(self, seen: Evidence, found: Found) -> Paging:
        """Which pages the call has: the configured ones, those of the calls before, or others."""
        call, reply, items = seen.call, seen.reply, found.items
        if call.reads == "usage" and not items:
            return Paging()
        extra = _rest(call, reply)
        page = replace(call.page, **self._page)
        first = pages.first_try(page)
        answer = await self._ask(call, {**extra, **first.params})
        shown = _items(answer)
        proved = pages.proves(first, items, items, shown) if items else None
        if proved is not None:
            return pages.conclude(call.page, reply, len(items), (first, {**self._page, **proved}))
        attempts: Iterable[pages.Try] = ()
        cut = 0 < len(shown) < len(items)
        if len(items) >= 3 and not (self._unpaged and not cut):
            attempts = pages.other_tries(page, answer if cut else reply, len(shown if cut else items))
        for attempt in attempts:
            answered = _items(await self._ask(call, {**extra, **attempt.params}))
            change = pages.proves(attempt, items, shown if cut else items, answered)
            if change is not None:
                self._page = change if attempt.how in ("offset_limit", "page_size") else self._page
                return pages.conclude(call.page, reply, len(items), (attempt, change))
        paging = pages.conclude(call.page, reply, len(items), None)
        self._unpaged = self._unpaged or paging.how == "none"
        return paging

    # ── time ───────────────────────────────────────────────────────────────────────────────────

    async def _look_at_span(self, seen: Evidence, params: Mapping[str, str]) -> None:
        """Asks for a span of time, in other words where the configured ones are not understood."""
        call = seen.call
        if call.window is None or seen.reply.ended in ("refused", "unknown", "away", "busy"):
            return
        now, unheard = seen.reply.time or self._api.now(), set[tuple[str, ...]]()
        for attempt in spans.attempts(call, now, self._span):
            if tuple(attempt.params) in unheard:
                continue
            reply = await self._ask(call, {**params, **attempt.params})
            verdict = spans.verdict(seen.reply, reply)
            if verdict == "unheard":
                unheard.add(tuple(attempt.params))
            if verdict == "works":
                required = {"required": True} if seen.reply.ended == "rejected" else {}
                seen.span = Span(True, {**attempt.change, **required})
                seen.windowed = reply
                seen.reply = reply if required else seen.reply
                self._span = Span(True, attempt.change)
                return
            if verdict == "refused":
                return
        # Of a report that cannot be had at all nothing is known, and guesses are not made twice.
        self._span = Span(False) if seen.reply.ended == "ok" else Span(None)
        seen.span = self._span

    async def _look_one_by_one(self, seen: Evidence, params: Mapping[str, str]) -> None:
        """Asks in other ways for a report that its own path does not give."""
        call = seen.call
        if seen.reply.ended not in ("unknown", "rejected"):
            return
        for change in findings.report_places(call):
            asked = replace(call, **change)
            if asked.for_each and asked.for_each not in self._ids:
                continue
            tried = Evidence(call=asked, reply=await self._ask(asked, params))
            await self._look_at_span(tried, params)
            if tried.reply.ended == "ok" and located(tried.reply.body) is not None:
                seen.call, seen.reply, seen.windowed, seen.span = asked, tried.reply, tried.windowed, tried.span
                seen.changes = dict(change)
                return

    # ── components ─────────────────────────────────────────────────────────────────────────────

    async def _look_elsewhere(self, seen: Evidence, params: Mapping[str, str]) -> None:
        """Looks for components where they may be besides: other attributes, all attributes, a path of their own."""
        for path, query in findings.component_places(seen.call):
            if findings.has_components(_items(seen.reply)):
                return
            asked = replace(seen.call, query=query)
            reply = await self._ask(asked, params, path)
            if reply.ended == "ok" and findings.has_components(_items(reply)):
                seen.reply = reply
                seen.changes = ({"path": path} if path != seen.call.path else {}) | {"query": dict(query)}
                seen.call = replace(asked, path=path)


def _items(reply: Reply) -> list[Any]:
    found = located(reply.body) if reply.ended == "ok" else None
    return found.items if found else []


def _rest(call: Call, reply: Reply) -> dict[str, str]:
    """The parameters of a request that belong neither to the call nor to its pages."""
    page = call.page
    known = {*call.query, page.limit_param, page.offset_param, page.page_param, page.size_param}
    return {name: said for name, said in reply.params.items() if name not in known}


_PATIENCE = 90.0
_ENDS: tuple[tuple[type[ApiError], Ended], ...] = (
    (Unauthorized, "refused"),
    (RateLimited, "busy"),
    (Unavailable, "away"),
    (NotFound, "unknown"),
)


def _ended(error: ApiError) -> Ended:
    for kind, ended in _ENDS:
        if isinstance(error, kind):
            return ended
    return "rejected" if " answered 4" in str(error) else "odd"


def _save(seen: list[Evidence], directory: Path, write: Write, masks: Masks) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    samples = redaction.samples([(e.call.id, e.reply.body) for e in seen if e.reply.ended == "ok"])
    for call, body in samples.items():
        said = msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"
        (directory / f"{call}.json").write_bytes(masks.mask_bytes(said))
    advice = "ids, names and positions are replaced; look at them before you send them"
    write("")
    _say(write, "saved", f"{len(samples)} samples in {directory}: {advice}")
