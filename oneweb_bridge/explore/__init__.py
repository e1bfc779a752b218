"""`oneweb-bridge explore`: tries each API call with a few read-only requests and says what to change in bridge.yaml.

The requests are here, their evaluation in `findings`, the output in `report`.
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
from oneweb_bridge.explore.evidence import Evidence, FoundList, Outcome, Paging, Reply, Span, find_list

Write = Callable[[str], None]


async def explore(config: Config, write: Write, save: Path | None = None, masks: Masks | None = None) -> bool:
    """Writes what was found. True when all enabled calls could be reached. Raises ConfigError without credentials.

    `masks` gets the tokens of the API, so that `write` can mask them.
    """
    require_credentials(config)
    masks = masks or Masks()
    async with _sign_in(config, write, masks) as (connection, changes):
        if connection is None:
            return False
        explorer = Explorer(connection)
        evidences = []
        for call in config.polling.values():
            _show_progress(f"asking {call.id} …")
            evidences.append(await explorer.explore_call(call))
        _show_progress("")
    result = findings.judge_all(evidences, config, changes)
    for line in report.lines(evidences, result):
        write(line)
    if save is not None:
        _save(evidences, save, write, masks)
    return all(evidence.reply.outcome in ("ok", "skipped") for evidence in evidences if evidence.call.enabled)


def _show_progress(text: str) -> None:
    """Writes over the last line of a terminal; nothing in a pipe."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


@contextlib.asynccontextmanager
async def _sign_in(
    config: Config, write: Write, masks: Masks
) -> AsyncIterator[tuple[ApiClient | None, dict[str, Any]]]:
    """A connection whose credentials were accepted, and the change that it took; None when they were not."""
    headers = replace(config.api, auth=replace(config.api.auth, style="headers"))
    attempts: list[tuple[Any, dict[str, Any]]] = [(config.api, {})]
    if config.api.auth.style == "basic":
        attempts.append((headers, {"api": {"auth": {"style": "headers"}}}))
    for settings, changes in attempts:
        async with open_api(settings, masks) as connection:
            try:
                await connection.hello()
            except Unauthorized as error:
                _write_entry(write, "sign-in", f"refused with auth.style {settings.auth.style}: {error}")
                continue
            except ApiError as error:
                advice = "Check api.base_url, api.hello.path, api.proxy and api.ca_file"
                _write_entry(write, "sign-in", f"failed: {error}. {advice}")
                break
            text = f"{settings.base_url} accepts the credentials (auth.style {settings.auth.style})"
            _write_entry(write, "sign-in", text)
            yield connection, changes
            return
    _write_entry(write, "", "nothing else was asked. Check api.client_id, api.client_secret and api.auth.style")
    yield None, {}


def _write_entry(write: Write, name: str, text: str) -> None:
    for line in report.entry(name, text):
        write(line)


class Explorer:
    """Explores one call after the other, trying first what worked for the calls before."""

    def __init__(self, connection: ApiClient) -> None:
        self._api = connection
        self._page: dict[str, Any] = {}
        self._unpaged = False
        self._span: Span | None = None
        self._ids: dict[str, str] = {}

    async def explore_call(self, call: Call) -> Evidence:
        """The answers to a few requests for one call."""
        if call.fetch == "request":
            return Evidence(call=call, reply=Reply(outcome="skipped"))
        params = pages.first_params(replace(call.page, **self._page))
        seen = Evidence(call=call, reply=await self._ask(call, params))
        if call.reads == "report":
            await self._try_windows(seen, params)
            await self._try_other_paths(seen, params)
        if call.reads == "components":
            await self._try_other_places(seen, params)
        seen.listed = find_list(seen.reply.body)
        if seen.reply.outcome == "ok" and seen.listed is not None:
            seen.paging = await self._paging(seen, seen.listed)
            self._note_id(call, seen.listed)
        return seen

    async def _ask(self, call: Call, params: Mapping[str, str], path: str = "") -> Reply:
        params_ = {**call.query, **params}
        path = path or call.path
        each = {"user_terminals": "{ut_id}", "products": "{product_id}"}.get(call.for_each or "", "")
        if each:
            id = self._ids.get(call.for_each or "", "")
            path = path.replace(each, quote(id, safe=""))
            params_ = {name: value.replace(each, id) for name, value in params_.items()}
        try:
            answer = await self._patiently(path, params_, call.empty_status)
        except ApiError as error:
            return Reply(outcome=_outcome_of(error), error=str(error), params=params_)
        try:
            check_size(answer.body)
            check_depth(answer.body)
            body = msgspec.json.decode(answer.body)
        except TooMuch as error:
            return Reply(outcome="odd", error=f"{path} answered with {error}: ask for less", params=params_)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Reply(outcome="odd", error=f"{path} answered with something that is not JSON", params=params_)
        return Reply(
            outcome="ok",
            params=params_,
            body=body,
            total=agreed_number(answer.lines(call.page.total_header)),
            next_page=next(iter(next_pages(answer.lines("Link"), answer.url)[0]), None),
            time=answer.time,
        )

    async def _patiently(self, path: str, params: Mapping[str, str], empty_status: Collection[int]) -> Answer:
        """The answer, after one pause where the API asks for at most MAX_PAUSE_S."""
        try:
            return await self._api.get(path, params, empty_status)
        except RateLimited as error:
            if error.pause > MAX_PAUSE_S:
                raise
            await asyncio.sleep(error.pause)
        return await self._api.get(path, params, empty_status)

    def _note_id(self, call: Call, listed: FoundList) -> None:
        ids = [str(item["id"]) for item in listed.items if isinstance(item, dict) and item.get("id")]
        self._ids.update({call.id: ids[0]} if ids else {})

    # ── pages ──────────────────────────────────────────────────────────────────────────────────

    async def _paging(self, seen: Evidence, listed: FoundList) -> Paging:
        """Which pages the call has: the configured ones, those of the calls before, or others."""
        call, reply, items = seen.call, seen.reply, listed.items
        if call.reads == "usage" and not items:
            return Paging()
        extra = _other_params(call, reply)
        page = replace(call.page, **self._page)
        first = pages.first_attempt(page)
        answer = await self._ask(call, {**extra, **first.params})
        page_items = _items(answer)
        proved = pages.change_proved_by(first, items, items, page_items) if items else None
        if proved is not None:
            return pages.conclude_paging(call.page, reply, len(items), (first, {**self._page, **proved}))
        attempts: Iterable[pages.PageAttempt] = ()
        cut = 0 < len(page_items) < len(items)
        if len(items) >= 3 and not (self._unpaged and not cut):
            attempts = pages.other_attempts(page, answer if cut else reply, len(page_items if cut else items))
        for attempt in attempts:
            answer_items = _items(await self._ask(call, {**extra, **attempt.params}))
            change = pages.change_proved_by(attempt, items, page_items if cut else items, answer_items)
            if change is not None:
                self._page = change if attempt.how in ("offset_limit", "page_size") else self._page
                return pages.conclude_paging(call.page, reply, len(items), (attempt, change))
        paging = pages.conclude_paging(call.page, reply, len(items), None)
        self._unpaged = self._unpaged or paging.how == "none"
        return paging

    # ── time ───────────────────────────────────────────────────────────────────────────────────

    async def _try_windows(self, seen: Evidence, params: Mapping[str, str]) -> None:
        """Requests a time window, with other parameters where the configured ones have no effect."""
        call = seen.call
        if call.window is None or seen.reply.outcome in ("refused", "unknown", "away", "busy"):
            return
        now, ignored = seen.reply.time or self._api.now(), set[tuple[str, ...]]()
        for attempt in spans.attempts(call, now, self._span):
            if tuple(attempt.params) in ignored:
                continue
            reply = await self._ask(call, {**params, **attempt.params})
            window_result = spans.judge_window(seen.reply, reply)
            if window_result == "unheard":
                ignored.add(tuple(attempt.params))
            if window_result == "works":
                required = {"required": True} if seen.reply.outcome == "rejected" else {}
                seen.span = Span(True, {**attempt.change, **required})
                seen.windowed = reply
                seen.reply = reply if required else seen.reply
                self._span = Span(True, attempt.change)
                return
            if window_result == "refused":
                return
        # A report that cannot be fetched at all shows nothing, and no guess is tried for two reports.
        self._span = Span(False) if seen.reply.outcome == "ok" else Span(None)
        seen.span = self._span

    async def _try_other_paths(self, seen: Evidence, params: Mapping[str, str]) -> None:
        """Tries other paths for a report that is not at its own."""
        call = seen.call
        if seen.reply.outcome not in ("unknown", "rejected"):
            return
        for change in findings.report_places(call):
            changed_call = replace(call, **change)
            if changed_call.for_each and changed_call.for_each not in self._ids:
                continue
            tried = Evidence(call=changed_call, reply=await self._ask(changed_call, params))
            await self._try_windows(tried, params)
            if tried.reply.outcome == "ok" and find_list(tried.reply.body) is not None:
                seen.call, seen.reply, seen.windowed, seen.span = changed_call, tried.reply, tried.windowed, tried.span
                seen.changes = dict(change)
                return

    # ── components ─────────────────────────────────────────────────────────────────────────────

    async def _try_other_places(self, seen: Evidence, params: Mapping[str, str]) -> None:
        """Tries other places of the components: other attributes, all attributes, a path of their own."""
        for path, query in findings.component_places(seen.call):
            if findings.has_components(_items(seen.reply)):
                return
            changed_call = replace(seen.call, query=query)
            reply = await self._ask(changed_call, params, path)
            if reply.outcome == "ok" and findings.has_components(_items(reply)):
                seen.reply = reply
                seen.changes = ({"path": path} if path != seen.call.path else {}) | {"query": dict(query)}
                seen.call = replace(changed_call, path=path)


def _items(reply: Reply) -> list[Any]:
    listed = find_list(reply.body) if reply.outcome == "ok" else None
    return listed.items if listed else []


def _other_params(call: Call, reply: Reply) -> dict[str, str]:
    """The parameters of a request that belong neither to the call nor to its pages."""
    page = call.page
    known = {*call.query, page.limit_param, page.offset_param, page.page_param, page.size_param}
    return {name: value for name, value in reply.params.items() if name not in known}


MAX_PAUSE_S = 90.0
_ENDS: tuple[tuple[type[ApiError], Outcome], ...] = (
    (Unauthorized, "refused"),
    (RateLimited, "busy"),
    (Unavailable, "away"),
    (NotFound, "unknown"),
)


def _outcome_of(error: ApiError) -> Outcome:
    for kind, ended in _ENDS:
        if isinstance(error, kind):
            return ended
    return "rejected" if " answered 4" in str(error) else "odd"


def _save(seen: list[Evidence], directory: Path, write: Write, masks: Masks) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    samples = redaction.samples([(e.call.id, e.reply.body) for e in seen if e.reply.outcome == "ok"])
    for call, body in samples.items():
        text = msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"
        (directory / f"{call}.json").write_bytes(masks.mask_bytes(text))
    advice = "ids, names and positions are replaced; look at them before you send them"
    write("")
    _write_entry(write, "saved", f"{len(samples)} samples in {directory}: {advice}")
