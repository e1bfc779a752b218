"""The uncertainties of the API reference, section 6, as a table: what may differ, and what to write into bridge.yaml.

Each row lets the simulator play one alternative, reads it with the row's lines of configuration, and must come to the
same records and samples as the defaults do with the default API: the truth does not depend on the form it comes in.
`python -m tests.fidelity` writes docs/fidelity.md anew from this table.
"""

import contextlib
import json
import re
import sqlite3
import textwrap
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from oneweb_bridge.api.client import open_api
from oneweb_bridge.clock import Clock
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.simulator import Options, Shape, Simulator, serve
from oneweb_bridge.store import store
from tests.harness import merged

DOCUMENT = Path(__file__).parent.parent / "docs" / "fidelity.md"

START = "2025-06-17T14:15:00Z"
STEP = 3600.0
"""Seconds between the two polls, so that the second one asks for a span of time."""

Fields = dict[str, Any]


class Seen(msgspec.Struct):
    """What the bridge knows in the end: records by kind and id, samples by report, id and time in ms."""

    records: dict[tuple[str, str], Fields] = {}
    samples: dict[tuple[str, str], dict[int, Fields]] = {}

    def kind(self, kind: str) -> Iterable[Fields]:
        """All records of a kind."""
        return [fields for (held, _), fields in self.records.items() if held == kind]

    def report(self, report: str) -> Iterable[Fields]:
        """The values of all samples of a report."""
        return [values for (held, _), by in self.samples.items() if held == report for values in by.values()]


Turn = Callable[[Seen], None]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One alternative. `turn` changes the truth where the alternative API cannot say all of it, or says it otherwise.

    `samples` are compared one by one ("all"), the newest of each id ("newest"), or those of the time that both polls
    of both APIs show ("common"). `seen`: `explore` names the lines.
    """

    row: str
    differs: str
    options: dict[str, Any] = {}
    shape: dict[str, Any] = {}
    yaml: str = ""
    note: str = ""
    calls: tuple[str, ...] = tuple(CALLS)
    turn: Turn = lambda _: None
    samples: Literal["all", "newest", "common"] = "all"
    base_url: str = ""
    seen: bool = True

    @property
    def lines(self) -> str:
        """The lines of bridge.yaml."""
        return textwrap.dedent(self.yaml).strip()


def options_of(row: Row) -> Options:
    """The simulator that plays a row."""
    given: dict[str, Any] = {"terminals": 12, "seed": 2, "start": START, "speed": 0.0}
    return Options(**given | row.options, shape=Shape(**row.shape))


def config_of(lines: str, url: str, **changes: Any) -> Config:
    """The configuration that `lines` make for the API at `url`."""
    base = {
        "api": {
            "base_url": url,
            "client_id": "demo",
            "client_secret": "demo-secret",
            "rate_limit": {"min_interval": "0s"},
        }
    }
    changed = yaml.safe_load(lines.replace("http://127.0.0.1:3128", url)) or {}
    return parse(yaml.safe_dump(merged(merged(base, changed), changes)), {})


async def seen(row: Row, directory: Path, lines: str | None = None) -> Seen:
    """Polls the API that a row describes twice, with the row's configuration or with other `lines`."""
    async with serve(options_of(row)) as simulator:
        changes = {"api": {"base_url": row.base_url}} if row.base_url else {}
        config = config_of(row.lines if lines is None else lines, simulator.url, **changes)
        await polled(simulator, config, directory / "bridge.db", row.calls)
    return known(directory / "bridge.db")


async def polled(simulator: Simulator, config: Config, path: Path, calls: Iterable[str]) -> None:
    """Two polls of each call, with some time between them."""
    clock = Clock(simulator.world.clock.now, simulator.world.clock.now, "a boot")
    async with store.open_store(path, clock) as kept, open_api(config.api) as connection:
        await connection.hello()
        intake = PollRunner(kept, connection, config, clock)
        for pause in (STEP, 0.0):
            for call in CALLS:
                if call in calls:
                    outcome = await intake.poll(call)
                    await kept.progress.save(outcome.progress)
                    assert not outcome.alerts, (call, outcome.alerts)
            await intake.update_relations()
            simulator.advance(pause)


def known(path: Path) -> Seen:
    """What stands in a database."""
    seen_by = Seen({}, {})
    with contextlib.closing(sqlite3.connect(path)) as db:
        for kind, id, doc in db.execute("SELECT kind, id, doc FROM record"):
            seen_by.records[kind, id] = json.loads(doc)
        rows = db.execute("SELECT id, name, body FROM journal WHERE what IN ('metric', 'history') ORDER BY seq")
        for id, report, body in rows:
            values = json.loads(body)
            seen_by.samples.setdefault((report, id), {})[values.pop("ts")] = values
    return seen_by


def part(whole: Seen, calls: Iterable[str]) -> Seen:
    """What those calls alone would have seen."""
    rows = [CALLS[call] for call in calls]
    reports = {row.report for row in rows} | ({"presence"} if "user_terminals" in calls else set())
    kinds = {
        {"components": "components", "usage": "usage"}.get(row.reads, row.entity) for row in rows if not row.report
    }
    kinds |= {"relations"} if set(calls) == set(CALLS) else set()
    return Seen(
        {key: dict(fields) for key, fields in whole.records.items() if key[0] in kinds},
        {
            key: {ts: dict(values) for ts, values in by.items()}
            for key, by in whole.samples.items()
            if key[0] in reports
        },
    )


def expected(row: Row, truth: Seen) -> Seen:
    """What must come out of a row."""
    wanted = part(truth, row.calls)
    row.turn(wanted)
    return wanted


def differences(row: Row, actual: Seen, wanted: Seen) -> list[str]:
    """Where what was found is not what is wanted, in words; nothing when all is well."""
    actual = part(actual, row.calls)
    unlike = _compared(actual.records, wanted.records, str)
    if row.samples == "newest":
        actual, wanted = _newest(actual), _newest(wanted)
    elif row.samples == "common":
        actual, wanted = _common(actual, wanted), _common(wanted, actual)
        assert sum(map(len, wanted.samples.values())), "no sample in common"
    return unlike + _compared(actual.samples, wanted.samples, lambda key: f"sample {key}")


def _compared(actual: dict[Any, Any], wanted: dict[Any, Any], name: Callable[[Any], str]) -> list[str]:
    return [
        f"{name(key)}: {_unlike(actual.get(key), wanted.get(key))}"
        for key in sorted(actual.keys() | wanted.keys())
        if actual.get(key) != wanted.get(key)
    ]


def _unlike(actual: Any, wanted: Any) -> str:
    if not isinstance(actual, dict) or not isinstance(wanted, dict):
        return f"found {actual}, expected {wanted}"
    unlike = [name for name in actual.keys() | wanted.keys() if actual.get(name) != wanted.get(name)]
    return "; ".join(f"{name}: {_unlike(actual.get(name), wanted.get(name))}" for name in unlike)


def _newest(all_: Seen) -> Seen:
    return Seen(all_.records, {key: {max(by): by[max(by)]} for key, by in all_.samples.items()})


def _common(seen_here: Seen, other: Seen) -> Seen:
    """The samples of one from the other's first to the other's last time."""
    common: dict[tuple[str, str], dict[int, Fields]] = {}
    for key, by in seen_here.samples.items():
        times = other.samples.get(key, {})
        first, last = min(times, default=0), max(times, default=0)
        common[key] = {ts: values for ts, values in by.items() if first <= ts <= last}
    return Seen(seen_here.records, {key: by for key, by in common.items() if by})


# ── the document ───────────────────────────────────────────────────────────────────────────────

_INTRODUCTION = """# When the API has another form

OneWeb's specification is not public. This page lists where your API may differ from the defaults of oneweb-bridge, and
the lines of `bridge.yaml` for each case. `oneweb-bridge explore` tells which of them you need, except in the rows with
"no" in the fourth column.

Each row is tested: the simulated API takes the other form, and the bridge polls it twice with exactly these lines, an
hour apart. Records and samples must be the same as with the default form (`tests/test_fidelity.py`; this page is
written from its table by `python -m tests.fidelity`).
"""


def document(rows: Iterable[Row]) -> str:
    """docs/fidelity.md: the table, and the lines of each row."""
    rows = list(rows)
    table = ["| Row | If | Change | `explore` tells | Options of the simulator in the test |", "|---|---|---|---|---|"]
    table += [
        f"| {row.row} | {row.differs} | {_change(row)} | {'yes' if row.seen else 'no'} | {_part(row)} |" for row in rows
    ]
    parts = [_INTRODUCTION, "\n".join(table), "\n## The lines\n"]
    for row in rows:
        if row.lines or row.note:
            parts.append(f"### {row.row}: {row.differs}\n")
            parts += [f"```yaml\n{row.lines}\n```\n"] if row.lines else []
            parts += [f"{row.note}\n"] if row.note else []
    return "\n".join(parts).rstrip() + "\n"


def _change(row: Row) -> str:
    """The keys that a row's lines set, without those below a call's map."""
    lines = yaml.safe_load(row.lines) or {}
    keys = {".".join(keys[2:3] if keys[0] == "polling" else keys[:2]) for keys in _keys(lines, ()) if keys}
    return ", ".join(f"`{key}`" for key in sorted(keys)) or "nothing"


def _keys(lines: Any, above: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    if not isinstance(lines, dict) or not lines:
        yield above
        return
    for name, below in lines.items():
        yield from _keys(below, (*above, name))


def _part(row: Row) -> str:
    parts = [f"`{name}={value}`" for name, value in {**row.options, **row.shape}.items()]
    return " ".join(parts) or ("it is the proxy" if row.base_url else "the default form")


def snippets(text: str) -> dict[str, str]:
    """The YAML of each row in a document."""
    sections = re.findall(r"^### ([^:\n]+): [^\n]*\n\n```yaml\n(.*?)\n```", text, re.MULTILINE | re.DOTALL)
    return dict(sections)


def listed(text: str) -> list[str]:
    """The rows of the table in a document."""
    return re.findall(r"^\| (\d[^|]*?) \|", text, re.MULTILINE)


@contextlib.asynccontextmanager
async def playing(row: Row) -> AsyncIterator[Simulator]:
    """The simulator of a row."""
    async with serve(options_of(row)) as simulator:
        yield simulator


if __name__ == "__main__":
    import asyncio
    import tempfile

    import stamina

    from tests.fidelity_runs import Outcome, outcome_of, rounds_of, section
    from tests.fidelity_table import ROWS
    from tests.fidelity_variants import VARIANTS

    async def outcomes() -> dict[str, Outcome]:
        """What becomes of each variant."""
        made = {}
        for name, change in VARIANTS.items():
            with tempfile.TemporaryDirectory() as directory:
                made[name] = await outcome_of(change, Path(directory), rounds_of(name))
        return made

    with stamina.set_testing(True, attempts=1, cap=True):
        DOCUMENT.write_text(f"{document(ROWS)}\n{section(asyncio.run(outcomes()))}")
