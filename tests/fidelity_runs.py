"""Runs the bridge and `explore` against a variant of the API, and compares what is published with the truth."""

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import yaml
from multidict import CIMultiDict, CIMultiDictProxy

from oneweb_bridge import explore
from oneweb_bridge.api.answers import Answer, Request
from oneweb_bridge.api.client import ApiClient, open_api
from oneweb_bridge.api.errors import ApiError
from oneweb_bridge.clock import Clock
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.explore.report import NOTHING_TO_CHANGE
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.store import store
from tests import fidelity_api
from tests.fidelity_api import HOST, INDICATORS, NOW, REPORTS, Api, imei, product_id
from tests.harness import merged

CALLS = (
    *("user_terminals", "user_terminal_components", "products", "organizations", "sites"),
    *REPORTS,
    "usage_consumption",
)
Values = dict[str, Any]
Published = dict[str, dict[str, Values]]
"""Call -> id -> fields."""
_NAMES = {"linkAvailability": "link_availability_pct", "resourceState": "resource_state"}
_NAMES |= {"rsrp": "rsrp_dbm", "rssi": "rssi_dbm", "sinr": "sinr_db"}
_NAMES |= {f"{side}{way}": f"{side}_{way.lower()}_bytes" for side in ("cnx", "mgmt", "wan") for way in ("Tx", "Rx")}
_SHORT = {"expeditedForwarding": "ef", "bestEffort": "be"}
_NAMES |= {f"{name}{way}": f"{_SHORT[name]}_{way.lower()}_bps" for name in _SHORT for way in ("Uplink", "Downlink")}


def truth() -> Published:
    """What there is to publish, straight from the numbers of the API."""
    numbers = range(fidelity_api.COUNT)
    truth: Published = {call: {} for call in CALLS}
    for n in numbers:
        api = fidelity_api.terminal(n)
        point = api["location"]["features"][0]["geometry"]["coordinates"]
        truth["user_terminals"][imei(n)] = {
            "name": f"Terminal {n}",
            "state": "online" if n else "offline",
            "serial_number": f"INS-{4400 + n}",
            "longitude": point[0],
            "latitude": point[1],
            "party_id": "ACC-101",
            "site_id": f"SITE-00{n % 3}",
        }
        truth["user_terminal_components"][imei(n)] = {"main/UT": f"1.{n}", "main/SSM": f"1.{n}"}
        truth["products"][product_id(n)] = {
            "status": "active",
            "imei": imei(n),
            "allowance_gb": 300,
            "end_customer_id": f"ACC-20{n % 2}",
            "max_bandwidth_downlink_mbps": 40,
            "max_bandwidth_uplink_mbps": 15,
        }
        used = {"used_gb": 120.5 + n, "remaining_gb": 179.5 - n, "entitlement_gb": 300, "product_id": product_id(n)}
        truth["usage_consumption"][f"1409-{n}"] = used
        for call in REPORTS:
            id = product_id(n) if call.startswith("product") else imei(n)
            truth[call][id] = {_NAMES[name]: _value(name, n) for name, _ in INDICATORS[call]}
            truth[call][id]["ts"] = (NOW - 60 * fidelity_api.LATE.get(call, 45)) * 1000
    truth["organizations"] = {"ACC-101": {"name": "Northlight Networks"}}
    truth["organizations"] |= {f"ACC-20{n}": {"name": f"Customer {n}", "parent_id": "ACC-101"} for n in range(2)}
    truth["sites"] = {
        f"SITE-00{n}": {"name": f"Site {n}", "latitude": 62.25 + n, "longitude": 6.5 + n} for n in range(3)
    }
    return truth


def _value(name: str, number: int) -> Any:
    value = fidelity_api.value_of(name, number, 0)
    return value * 1e6 if name.endswith("link") else value


TRUTH = truth()


class Run(msgspec.Struct):
    """What came of one variant: the calls that are published right, what the bridge told of the others, and errors."""

    right: set[str]
    sentences: dict[str, str]

    @property
    def silent(self) -> set[str]:
        """The calls that are wrong, and nobody was told."""
        return set(CALLS) - self.right - self.sentences.keys()


@contextlib.contextmanager
def playing(api: Api) -> Iterator[None]:
    """Lets every request of the client be answered by `api`."""

    async def exchange(self: ApiClient, request: Request, headers: dict[str, str], form: Any = None) -> Answer:
        del form
        self._api_clock = NOW * 1000, self._clock.elapsed()
        self._host.note_start(0.0)
        reply = api.answer(request.url.removeprefix(HOST), dict(request.params or {}), headers)
        lines = CIMultiDict({"Date": "Tue, 17 Jun 2025 14:15:00 GMT", **reply.headers})
        body = (
            reply.body
            if isinstance(reply.body, bytes)
            else b""
            if reply.body is None
            else json.dumps(reply.body).encode()
        )
        return Answer(reply.status, body, CIMultiDictProxy(lines), NOW * 1000, request.url)

    with mock.patch.object(ApiClient, "_exchange", exchange):
        yield


def configured(lines: str = "") -> Config:
    """The configuration with some lines."""
    base = {"base_url": HOST, "client_id": "demo", "client_secret": "demo-secret", "rate_limit": {"min_interval": "0s"}}
    return parse(yaml.safe_dump(merged({"api": base}, yaml.safe_load(lines) or {})), {})


async def explored(api: Api, lines: str = "") -> tuple[bool, str]:
    """What explore says."""
    printed: list[str] = []
    with playing(api):
        good = await explore.explore(configured(lines), printed.append)
    assert good == (printed[-1] == NOTHING_TO_CHANGE)
    return good, "\n".join(printed)


def proposed(text: str) -> str:
    """The lines that explore prints at its end."""
    return text.partition("do not repeat them):\n\n")[2].partition("\n\n")[0]


async def run(api: Api, lines: str, path: Path, rounds: int = 1) -> Run:
    """Polls each call so many times, and says what is published right."""
    sentences: dict[str, str] = {}
    clock = Clock(lambda: NOW, lambda: NOW, "a boot")
    config = configured(lines)
    with playing(api):
        async with store.open_store(path, clock) as kept, open_api(config.api, clock=clock) as client:
            try:
                await client.hello()
            except ApiError as error:
                return Run(set(), dict.fromkeys(CALLS, str(error)))
            runner = PollRunner(kept, client, config, clock)
            for _ in range(rounds):
                for call in CALLS:
                    await _poll(runner, kept, call, sentences)
    published = _published(path)
    return Run({call for call in CALLS if _is_right(published[call], TRUTH[call])}, sentences)


async def _poll(runner: PollRunner, kept: store.Store, call: str, sentences: dict[str, str]) -> None:
    try:
        outcome = await runner.poll(call)
        await kept.progress.save(outcome.progress)
    except ApiError as error:
        sentences.setdefault(call, str(error))
        return
    if outcome.incomplete:
        sentences.setdefault(call, outcome.incomplete)
    for alert in outcome.alerts:
        sentences.setdefault(call, alert.message)
    if not outcome.records:
        sentences.setdefault(call, "0 records")


_KINDS = {"user_terminals": "terminal", "products": "product", "organizations": "organization", "sites": "site"}
_KINDS |= {"user_terminal_components": "components", "usage_consumption": "usage"}


def _published(path: Path) -> Published:
    published: Published = {call: {} for call in CALLS}
    by_kind = {kind: call for call, kind in _KINDS.items()}
    by_report = {call.removeprefix("ut_").removeprefix("product_"): call for call in REPORTS}
    with contextlib.closing(sqlite3.connect(path)) as db:
        for kind, id, doc in db.execute("SELECT kind, id, doc FROM record"):
            if kind in by_kind:
                published[by_kind[kind]][id] = json.loads(doc)
        rows = db.execute("SELECT id, name, body FROM journal WHERE what IN ('metric', 'history') ORDER BY seq")
        for id, report, body in rows:
            values = json.loads(body)
            if report in by_report:
                newest = published[by_report[report]].setdefault(id, values)
                if values["ts"] >= newest["ts"]:
                    published[by_report[report]][id] = values
    return published


def _is_right(actual: dict[str, Values], wanted: dict[str, Values]) -> bool:
    return actual.keys() == wanted.keys() and all(
        _is_same(actual[id].get(name), value)
        for id, fields in wanted.items()
        for name, value in _flat(actual[id], fields)
    )


def _flat(actual: Values, fields: Values) -> Iterator[tuple[str, Any]]:
    yield from fields.items()


def _is_same(actual: Any, wanted: Any) -> bool:
    if isinstance(wanted, int | float) and isinstance(actual, int | float):
        return abs(actual - wanted) <= 1e-6 * max(1, abs(wanted))
    return str(actual).casefold() == str(wanted).casefold()


class Outcome(msgspec.Struct, frozen=True):
    """What became of a variant: `right`, `lines`, `told`, `silent`, or `worse`; and the lines, or what a poll tells."""

    kind: str
    text: str


async def outcome_of(change: Any, directory: Path, rounds: int = 1) -> Outcome:
    """Explores a variant, and polls it with the proposed lines, or without any where none are proposed."""
    api = Api()
    change(api)
    good, text = await explored(api)
    lines = proposed(text)
    if not lines and not good:
        return _outcome_of_poll(await run(api, "", directory / "before.db", rounds))
    after = await run(api, lines, directory / "after.db", rounds)
    if good:
        return Outcome("right", "") if after.right == set(CALLS) else Outcome("silent", str(set(CALLS) - after.right))
    is_read, second = await explored(api, lines)
    if after.right == set(CALLS):
        return Outcome("lines", lines) if is_read and not proposed(second) else Outcome("worse", second)
    before = await run(api, "", directory / "before.db", rounds)
    if before.right - after.right:
        return Outcome("worse", f"{before.right - after.right} {lines}")
    return Outcome("silent", f"{set(CALLS) - after.right} {lines}") if is_read else _outcome_of_poll(after)


def _outcome_of_poll(polled: Run) -> Outcome:
    """What `explore` tells is told by a poll too, of each call that is not right; without a word it is silent."""
    if polled.silent or not polled.sentences:
        return Outcome("silent", f"explore alone tells it: {polled.silent}")
    call = next(call for call in CALLS if call in polled.sentences)
    return Outcome("told", f"{call}: {polled.sentences[call].replace(HOST, '')}")


def rounds_of(name: str) -> int:
    """How many polls a variant needs: the second asks with time parameters."""
    return 2 if name.startswith("time:") else 1


async def told_after(change: Any, directory: Path) -> Run:
    """What one poll tells that comes after a good one, when the API has changed meanwhile."""
    api, good = Api(), Api()
    sentences: dict[str, str] = {}
    clock = Clock(lambda: NOW, lambda: NOW, "a boot")
    config = configured()
    with playing(good):
        async with (
            store.open_store(directory / "bridge.db", clock) as kept,
            open_api(config.api, clock=clock) as client,
        ):
            runner = PollRunner(kept, client, config, clock)
            for call in CALLS:
                await _poll(runner, kept, call, sentences)
            assert not sentences
            change(api)
            good.__dict__.update(api.__dict__)
            for call in CALLS:
                await _poll(runner, kept, call, sentences)
    return Run(set(), sentences)


# ── the document ───────────────────────────────────────────────────────────────────────────────

BEGIN = "## Variants that are played\n"
_INTRODUCTION = """
A small API of the tests, which shares no code with the bridge, differs from the defaults in one way at a time.
`oneweb-bridge explore` is run against it, its lines are put into the configuration, the bridge polls, and what it
publishes is compared with the truth. In none of them is something silently wrong, and none is made worse by a line.
What is told is told by each poll as well, in the state of the call or by an alert: the sentence is the first of them.
"""
_KINDS_IN_WORDS = {
    "right": "right without a line",
    "lines": "right with the lines of `explore --write`",
    "told": "told",
}


def section(outcomes: dict[str, Outcome]) -> str:
    """The table of variants for docs/fidelity.md."""
    kinds = [outcome.kind for outcome in outcomes.values()]
    rows = [f"| {name} | {_KINDS_IN_WORDS[made.kind]} | {cell(made)} |" for name, made in outcomes.items()]
    counts = ", ".join(f"{kinds.count(kind)} {words}" for kind, words in _KINDS_IN_WORDS.items())
    return "\n".join([BEGIN, _INTRODUCTION.strip(), "", f"{len(rows)} variants: {counts}.", "", *_HEAD, *rows]) + "\n"


_HEAD = ("| If | The bridge is | The lines, or what the poll tells |", "|---|---|---|")
MAX_CELL_CHARS = 220


def cell(outcome: Outcome) -> str:
    """The lines in one line, each key with the calls that it is of; or the sentence, as far as it fits."""
    if outcome.kind == "lines":
        return "; ".join(f"`{line}`" for line in _in_one_line(yaml.safe_load(outcome.text)))
    text = " ".join(outcome.text.split()).replace("|", "\\|")
    return text if len(text) <= MAX_CELL_CHARS else f"{text[:MAX_CELL_CHARS].rpartition(' ')[0]} …"


def _in_one_line(lines: Values) -> Iterator[str]:
    calls: dict[str, list[str]] = {}
    for call, settings in lines.pop("polling", {}).items():
        for name, value in settings.items():
            calls.setdefault(f"{name}: {_flow(value)}", []).append(call)
    for key, value in lines.items():
        yield f"{key}: {_flow(value)}"
    for setting, named in calls.items():
        yield f"polling.{_GROUPS.get(tuple(named)) or ' and '.join(named)}.{setting}"


_GROUPS = {
    CALLS: "<each call>",
    CALLS[:-1]: "<each call but usage_consumption>",
    tuple(call for call in CALLS if call not in ("organizations", "sites")): "<each call but organizations and sites>",
    REPORTS: "<each report>",
    REPORTS[:4]: "<each report of terminals>",
}


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def listed(text: str) -> dict[str, tuple[str, str]]:
    """Variant -> what the document says of it, and its lines or sentence."""
    words = {value: kind for kind, value in _KINDS_IN_WORDS.items()}
    rows = re.findall(r"^\| (.+?) \| (right.*?|told) \| (.*?) ?\|$", text.partition(BEGIN)[2], re.MULTILINE)
    return {name: (words[kind], shown) for name, kind, shown in rows}
