"""`make bench`: the table of goals, measured on this machine; printed, written as JSON, and on request into a page.

    make bench                                         everything, about half an hour
    make bench ARGS='--rows 1,3,7'                     some rows
    make bench ARGS='--rounds 1 --scale 0.1'           a quick look at small fleets
    make bench ARGS='--rows 18 --live 3600'            the console's page open for an hour
    make bench ARGS='--write docs/performance.md'      puts table and plot into that page
    make bench ARGS='--rows 18 --add build/bench.json --write docs/performance.md'
                                                       measures row 18 anew, and keeps all others of that run

A row that cannot be measured is shown with the reason, and stops no other.
"""

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from bench import (
    console,
    delay,
    edge,
    fleet,
    flushing,
    inside,
    job,
    nodered,
    plot,
    postgres,
    ratios,
    restart,
    same_messages,
    shipped,
    trends,
)
from bench.machine import machine, words
from bench.progress import say
from bench.scope import Scope
from bench.table import Row, between_marks, markdown, number, plain, text
from oneweb_bridge.cli.signals import THREAD_SWITCH_S

LAG = "lag"
NUMBERS = (*(str(number) for number in range(1, 21)), LAG)
FILE = Path("build/bench.json")
Measure = Callable[[Scope], AsyncIterator[Row]]


class Part(msgspec.Struct, frozen=True):
    """What is measured together: the rows it gives, what it is, and the seconds after which it is given up."""

    numbers: tuple[str, ...]
    what: str
    limit: float
    rows: Measure


def parts(drawn: inside.Curves, live: float = 0.0) -> list[Part]:
    """All of them, ratios of time first. The growth's curves are left in `drawn`; `live` is as of the scope."""
    return [
        Part(("1",), "unchanged polls", 900, ratios.poll_rows),
        Part(("19",), "coverage", 600, ratios.coverage_rows),
        Part(("2", "3"), "drains", 900, ratios.drain_rows),
        Part(("4",), "the stall", 300, ratios.stall_row),
        Part(("5",), "transactions", 600, ratios.transaction_row),
        Part(("6", "7"), "against Node-RED", 1200, nodered.rows),
        Part(("6",), "against Node-RED with the same messages", 900, same_messages.rows),
        Part(("9",), "delay", 600, delay.rows),
        Part(("12",), "the shipped broker", 600, shipped.rows),
        Part(("14",), "the floor of the job", 900, job.rows),
        Part(("15",), "flushing", 900, flushing.rows),
        Part(("11",), "growth", 600, lambda scope: inside.growth_rows(scope, drawn)),
        Part(("16",), "Sparkplug", 1200, edge.rows),
        Part(("17", "18"), "the console", 1500 + live, console.rows),
        Part((LAG,), "the event loop's lag", 300, inside.lag_rows),
        Part((LAG, "10"), "start", 900, restart.rows),
        Part(("10",), "trimming", 300, inside.trim_rows),
        Part(("7", "8"), "memory and a full cycle", 2700, fleet.rows),
        Part(("13",), "the trends", 2400, trends.rows),
        Part((postgres.NUMBER,), "PostgreSQL", 2400, postgres.rows),
    ]


async def measured(part: Part, scope: Scope) -> list[Row]:
    """The wanted rows of one part, also of one that ends in its middle."""
    rows: list[Row] = []
    try:
        async with asyncio.timeout(part.limit):
            async for row in part.rows(scope):
                if row.number in scope.rows:
                    rows.append(row)
                    say(f"row {row.number}: {row.what}: {number(row.measured)} {row.unit} {row.trouble}")
    except TimeoutError as error:
        rows += _missing(part, scope, str(error) or f"not measured in {part.limit:.0f} s")
    except Exception as error:  # noqa: BLE001 -- whatever stops one part is told in its row, and stops no other
        rows += _missing(part, scope, f"{type(error).__name__}: {error}")
    return rows


def _missing(part: Part, scope: Scope, why: str) -> list[Row]:
    """What stands for the rows that a part did not come to."""
    say(f"{part.what}: {why}")
    numbers = [number for number in part.numbers if number in scope.rows]
    line = " ".join(why.split())[:300]
    return [Row(number=number, what=f"{part.what}: the rest", trouble=line) for number in numbers]


async def bench(scope: Scope, drawn: inside.Curves) -> list[Row]:
    """All wanted rows in the order of their numbers."""
    rows: list[Row] = []
    for part in parts(drawn, scope.live):
        if not scope.rows.isdisjoint(part.numbers):
            say(f"{part.what} (row {', '.join(part.numbers)})")
            rows += await measured(part, scope)
            gc.collect()
    return sorted(rows, key=lambda row: NUMBERS.index(row.number))


# ── what is left behind ────────────────────────────────────────────────────────────────────────


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured by one command, when, and on what."""

    command: str
    date: str
    rounds: int
    scale: float
    machine: str
    minutes: float
    numbers: list[str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The rows, and the runs that they come from: more than one where `--add` named an earlier report."""

    runs: list[Run]
    rows: list[dict[str, object]]


def describe_run(given: argparse.Namespace, begun: float) -> Run:
    """What was measured by the options of this run, and on what."""
    options = [f"--rounds {given.rounds}", f"--scale {given.scale:g}", f"--live {given.live:g}"]
    options = [option for option in options if option not in ("--rounds 7", "--scale 1", "--live 20")]
    options += [f"--rows {','.join(given.rows)}"] if len(given.rows) < len(NUMBERS) else []
    return Run(
        command=f"make bench ARGS='{' '.join(options)}'" if options else "make bench",
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        rounds=given.rounds,
        scale=given.scale,
        machine=words(machine()),
        minutes=(time.monotonic() - begun) / 60,
        numbers=given.rows,
    )


def add_rows(earlier: Report, run: Run, rows: list[Row]) -> tuple[list[Run], list[Row]]:
    """The rows of this run, and of an earlier one those whose numbers this run did not measure, each with its run."""
    fields = {field.name for field in msgspec.structs.fields(Row)}
    plain_rows = [{name: value for name, value in row.items() if name in fields} for row in earlier.rows]
    kept = [row for row in msgspec.convert(plain_rows, list[Row]) if row.number not in run.numbers]
    numbers = {row.number for row in kept}
    still = [
        msgspec.structs.replace(before, numbers=[number for number in before.numbers if number in numbers])
        for before in earlier.runs
    ]
    both = sorted([*kept, *rows], key=lambda row: NUMBERS.index(row.number))
    return [*(before for before in still if before.numbers), run], both


def write(page: Path, runs: list[Run], rows: list[Row], drawn: inside.Curves) -> None:
    """Puts table and plot into a page; what stands around its marks is kept. The plot is a file beside it."""
    several = len(runs) > 1
    body = [
        f"{'- ' if several else ''}`{run.command}` on {run.date}, {run.minutes:.0f} minutes"
        f"{', for row ' + ', '.join(run.numbers) if several else ''}."
        for run in runs
    ]
    body += [
        "",
        *(f"Machine: {machine}." for machine in dict.fromkeys(run.machine for run in runs)),
        "",
        *markdown(rows),
    ]
    picture = page.with_suffix(".svg")
    if drawn:
        picture.write_text(plot.svg(drawn, "terminals or changes", "CPU seconds"))
    if picture.exists():
        body += ["", f"![CPU seconds against the size of the fleet and of the change]({picture.name})"]
    page.write_text(between_marks(page.read_text() if page.exists() else "", body))


def _chosen(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in NUMBERS]:
        raise argparse.ArgumentTypeError(f"there is no row {unknown[0]}: expected some of {', '.join(NUMBERS)}")
    return names


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("expected a number from 1")
    return int(text)


def _scale(text: str) -> float:
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError("expected a number above 0, at most 1")
    return float(text)


def _seconds(text: str) -> float:
    if not 0 <= float(text) <= 86_400:
        raise argparse.ArgumentTypeError("expected seconds from 0 to 86400")
    return float(text)


def _earlier(text: str) -> Report:
    try:
        return msgspec.json.decode(Path(text).read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError) as error:
        raise argparse.ArgumentTypeError(f"{text} has no figures of an earlier run: {error}") from None


def options(arguments: list[str]) -> argparse.Namespace:
    """What the command line says."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=form)
    parser.add_argument("--rounds", type=_count, default=7, help="of each ratio, of which the median counts (7)")
    parser.add_argument("--scale", type=_scale, default=1.0, help="smaller fleets and journals for a quick look")
    parser.add_argument("--rows", type=_chosen, default=list(NUMBERS), help=f"some of {','.join(NUMBERS)}")
    parser.add_argument(
        "--live", type=_seconds, default=20.0, help="seconds that a page of the console stays open (20)"
    )
    parser.add_argument(
        "--add", type=_earlier, metavar="FILE", help=f"keeps the other rows of an earlier run's figures, say {FILE}"
    )
    parser.add_argument("--json", type=Path, default=FILE, help=f"where the figures go ({FILE})")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="puts table and plot into a page")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Prints the table; the exit code is 0 whatever it says, for a figure is no verdict."""
    given, begun, drawn = options(arguments), time.monotonic(), inside.Curves()
    # As the command does: the parts that run in this process take the interpreter in turns of the same length.
    sys.setswitchinterval(THREAD_SWITCH_S)
    rows = asyncio.run(bench(Scope(given.rounds, given.scale, frozenset(given.rows), given.live), drawn))
    run = describe_run(given, begun)
    runs, rows = add_rows(given.add or Report(runs=[], rows=[]), run, rows)
    report = Report(runs=runs, rows=plain(rows))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    print(text(rows))
    print(f"\n{run.machine}\n{given.json}: {run.minutes:.0f} minutes")
    if given.write:
        write(given.write, runs, rows, drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
