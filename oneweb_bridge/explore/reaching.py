"""Reaches one call: finds its path, its parameters, its pages and its time parameters, each proved by a reading."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from oneweb_bridge.api import headers
from oneweb_bridge.api.answers import Answer
from oneweb_bridge.api.errors import ApiError
from oneweb_bridge.api.paging import Paging
from oneweb_bridge.decode.catalogue import Call, PageSettings
from oneweb_bridge.decode.sizes import TooMuch, check_depth, check_size
from oneweb_bridge.explore import pages, places, spans
from oneweb_bridge.explore.client import ExploreApi, TrialsUsedUp
from oneweb_bridge.explore.context import Finding
from oneweb_bridge.explore.evidence import Evidence, Reply, Tree, find_list, selector_of
from oneweb_bridge.explore.judge_reports import report_places
from oneweb_bridge.explore.reading import CallReading, outcome_of
from oneweb_bridge.explore.trials import Trials, improves, is_no_worse, lists_more, lists_more_at_once, with_change
from oneweb_bridge.polling.time_windows import time_windows, window_params

IsAcceptable = Callable[[CallReading, CallReading], bool]


class CallResult(msgspec.Struct, kw_only=True):
    """What became of one call: how it is read as configured, and with all accepted changes.

    `findings` are the accepted changes, each with its reason; `notes` what nothing that was tried mends.
    """

    call: Call
    as_configured: CallReading
    reading: CallReading
    evidence: Evidence
    findings: list[Finding] = []
    notes: list[str] = []

    @property
    def is_whole(self) -> bool:
        """Whether the call was reached and read in full, with the accepted changes."""
        return self.reading.is_whole and not self.notes


class CallReacher:
    """Reaches one call after the other. What worked for a call is tried first for the others."""

    def __init__(self, api: ExploreApi, trials: Trials) -> None:
        self._api = api
        self._trials = trials
        self._page_hints: list[dict[str, Any]] = []
        self._path_hints: list[tuple[str, str]] = []
        self._window_hint: dict[str, Any] | None = None

    def _call(self, id: str) -> Call:
        return self._trials.call(id)

    async def reach(self, id: str, result: CallResult) -> None:
        """Tries what lets the call be read where it is not, or not as a whole. Raises TrialsUsedUp."""
        if result.reading.outcome == "unknown":
            await self._try_other_paths(id, result)
        if result.reading.outcome == "rejected":
            await self._try_after_refusal(id, result)
        if result.reading.outcome == "odd":
            await self._look_for_list(id, result)
        await self._look_at_pages(id, result)
        if self._call(id).reads == "report":
            await self._look_at_windows(id, result)

    async def _try_other_paths(self, id: str, result: CallResult) -> None:
        path = self._call(id).path
        for place in self._other_places(self._call(id)):
            before = self._trials.changes
            reading = await self._accept(id, result, place, "the call is elsewhere")
            if reading is not None:
                self._path_hints.append((path, self._call(id).path))
                return
            tried = await self._trials.read(id, _changed(before, id, place))
            if tried is not None and tried.outcome == "rejected":
                # It is there, and wants other parameters.
                self._trials.changes = _changed(before, id, place)
                result.reading = tried
                result.findings.append(Finding("the call is elsewhere", {"polling": {id: place}}))
                return

    def _other_places(self, call: Call) -> Iterator[Tree]:
        elsewhere = list(report_places(call)) if call.reads == "report" else []
        yield from (place for place in elsewhere if self._has_ids(place))
        # For a call that the bridge does not poll, not so many requests are worth it.
        if call.enabled:
            yield from ({"path": path} for path in places.other_paths(call.path, self._path_hints))

    def _has_ids(self, place: Tree) -> bool:
        kind = {"user_terminals": "terminal", "products": "product"}.get(place.get("for_each", ""))
        return kind is None or bool(self._trials.inventory.get(kind))

    async def _try_after_refusal(self, id: str, result: CallResult) -> None:
        """Where a request was refused: other time parameters, smaller pages, no query, one by one."""
        call, text = self._call(id), result.reading.error
        windows = [
            ({"window": change}, "time parameters are wanted otherwise")
            for change in (spans.changes_after_refusal(call, text, self._window_hint) if call.window else ())
        ]
        smaller = [
            ({"page": change}, "a page was refused")
            for change in pages.refusal_changes(call.page, text if "limit" in text or "size" in text else "")
        ]
        queries: list[tuple[Tree, str]] = [({"query": {}}, "the query was refused")] if call.query else []
        elsewhere = [(p, "the call is elsewhere") for p in report_places(call) if self._has_ids(p)] if windows else []
        is_about_pages = any(word in text for word in (call.page.limit_param, call.page.offset_param, "page"))
        is_about_time = result.reading.window_refused or not is_about_pages
        order = [*windows, *smaller] if is_about_time else [*smaller, *windows]
        for change, reason in [*queries, *order[:12], *elsewhere, *order[12:]]:
            if await self._accept(id, result, change, f"{reason} ({text})") is not None:
                self._window_hint = change.get("window", self._window_hint)
                return

    async def _accept(
        self, id: str, result: CallResult, keys: Tree, reason: str, is_acceptable: IsAcceptable = improves
    ) -> CallReading | None:
        """Accepts a change of keys of the call where it is read better with it."""
        change = {"polling": {id: keys}}
        reading = await self._trials.try_change(id, change, result.reading, is_acceptable)
        if reading is not None:
            result.reading = reading
            result.findings.append(Finding(reason, change))
        return reading

    # ── the list ───────────────────────────────────────────────────────────────────────────────

    async def _look_for_list(self, id: str, result: CallResult) -> None:
        """Where the list is elsewhere in the answer: it may be read only together with the pages that it comes in."""
        call = self._call(id)
        reply = await self.first_reply(call)
        listed = find_list(reply.body)
        records = None if listed is None else selector_of(call, listed)
        if listed is None or records is None:
            return
        keys, reason = {"records": records}, f"the records are in {listed.shape}"
        if await self._accept(id, result, keys, reason) is not None:
            return
        for change in pages.page_changes(call.page, reply, len(listed.items), self._page_hints):
            if await self._accept(id, result, {**keys, "page": change}, f"{reason}, in other pages") is not None:
                self._page_hints.insert(0, change)
                return

    # ── pages ──────────────────────────────────────────────────────────────────────────────────

    async def _look_at_pages(self, id: str, result: CallResult) -> None:
        """Where anything says that there is more than was read, other page styles are tried."""
        call, reading = self._call(id), result.reading
        reply = await self.first_reply(call)
        listed = find_list(reply.body)
        if reply.outcome != "ok" or listed is None or call.for_each is not None:
            return
        count = len(listed.items)
        is_cut = reading.outcome == "odd" and "the listing is not complete" in reading.error
        # Where rows of several pages make one record each, they come as one page.
        has_read_on = reading.outcome == "ok" and (reading.pages > 1 or reading.count > count)
        more = "" if has_read_on else pages.evidence_of_more(reply, count, unpaged=reading.unpaged)
        if not more and reading.unpaged:
            more = await self._probe_pages(call, listed.items)
        if not (more or is_cut):
            return
        for is_acceptable in (lists_more, lists_more_at_once):
            for change in pages.page_changes(call.page, reply, count, self._page_hints):
                if await self._accept(id, result, {"page": change}, "the listing comes in other pages", is_acceptable):
                    self._page_hints.insert(0, change)
                    return
        # Where a number of records is only usual for a page, and nothing that was tried shows more, that is all.
        if not more.endswith(pages.USUAL_SIZE) and not is_cut:
            result.notes.append(f"only {count} records came, although {more}: set polling.{id}.page")

    async def _probe_pages(self, call: Call, items: list[Any]) -> str:
        """Whether parameters of pages under any usual name change what comes."""
        for probe in pages.PROBES:
            reply = await self.ask(replace(call, page=PageSettings(style="none")), {**call.query, **probe})
            listed = find_list(reply.body)
            if reply.outcome == "ok" and listed is not None and listed.items != items:
                return "parameters of pages change what comes"
        return ""

    async def first_reply(self, call: Call) -> Reply:
        """The first answer as the bridge asks for it."""
        params = dict(call.query)
        windows = time_windows(call, 0, -1, earlier_now=self._api.now(), api_now=self._api.now())
        params |= window_params(call, windows[0])
        return await self.ask(call, params)

    async def ask(self, call: Call, params: dict[str, str]) -> Reply:
        request, path = Paging(call.page, self._api.url(call.path)).next_request, call.path
        params = {**params, **(request.params if request else {})}
        if call.for_each:
            kind, name = ("terminal", "{ut_id}") if call.for_each == "user_terminals" else ("product", "{product_id}")
            id = next(iter(self._trials.inventory.get(kind, {})), "")
            path = path.replace(name, quote(id, safe=""))
            params = {key: value.replace(name, id) for key, value in params.items()}
        try:
            return _reply_of(await self._api.get(path, params, call.empty_status), params)
        except TrialsUsedUp:
            raise
        except ApiError as error:
            return Reply(outcome=outcome_of(error), error=str(error), params=params)

    # ── time ───────────────────────────────────────────────────────────────────────────────────

    async def _look_at_windows(self, id: str, result: CallResult) -> None:
        """Whether time parameters are heard, and if not, whether others are."""
        call = self._call(id)
        if call.window is None or call.window.required or result.reading.outcome != "ok":
            return
        plain, ignored = await self.first_reply(call), set[tuple[str, ...]]()
        for attempt in spans.attempts(call, self._api.now(), self._window_hint):
            if tuple(attempt.params) in ignored:
                continue
            effect = spans.judge_window(plain, await self.ask(call, {**call.query, **attempt.params}))
            if effect == "unheard":
                ignored.add(tuple(attempt.params))
            if effect == "refused":
                return
            if effect == "works":
                change = {"window": attempt.change}
                if not attempt.change or await self._accept(id, result, change, "other time parameters"):
                    self._window_hint = attempt.change
                    return
                if await self._accept(id, result, change, "other time parameters", is_no_worse):
                    self._window_hint = attempt.change
                    return
        if plain.outcome == "ok" and result.reading.samples:
            await self._accept(id, result, {"window": "none"}, "time parameters have no effect", is_no_worse)


def _changed(changes: Tree, id: str, keys: Tree) -> Tree:
    return with_change(changes, {"polling": {id: keys}})


def _reply_of(answer: Answer, params: dict[str, str]) -> Reply:
    try:
        check_size(answer.body)
        check_depth(answer.body)
        body = msgspec.json.decode(answer.body.removeprefix(b"\xef\xbb\xbf"))
    except TooMuch as error:
        return Reply(outcome="odd", error=f"the answer has {error}: ask for less", params=params)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Reply(outcome="odd", error="the answer is not JSON", params=params)
    totals = [
        (name, number)
        for name in dict.fromkeys(answer.headers)
        if "total" in name.casefold() and (number := headers.agreed_number(answer.lines(name))) is not None
    ]
    return Reply(
        outcome="ok",
        params=params,
        body=body,
        totals=tuple(totals),
        next_page=next(iter(headers.next_pages(answer.lines("Link"), answer.url)[0]), None),
        is_part=answer.status == 206,
        time=answer.time,
    )
