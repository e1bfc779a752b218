"""The table of statements in docs/sparkplug.md: what the checker said of the scenarios.

python -m tests.sparkplug.table --write docs/sparkplug.md      plays the scenarios and writes it (half a minute)
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.sparkplug import scenarios
from tests.sparkplug.checker import check, failures, merge
from tests.sparkplug.judgement import Judgement
from tests.sparkplug.wire import Trace

BEGIN = "<!-- statements: written by python -m tests.sparkplug.table -->"
END = "<!-- statements: end -->"
INTRODUCTION = """\
## Statements of the specification

`make test` plays scenarios with the real command and a real mosquitto, with MQTT 5 and 3.1.1: start, data, rebirth,
Devices that join and leave, a new metric, more than 256 messages, an API that goes away, a restart of the broker,
`kill -9`, a graceful stop, a primary host that is offline, comes, says old things and goes, and several Edge Nodes.
A tap between the bridge and the broker writes down every packet, and a checker judges them by 157 statements: the 128
that the edge tests of the TCK assert for what the bridge uses (no templates, no data sets, one server), and 29 others
that can be seen on the wire. That `bdSeq` wraps after 255 is tested with a mosquitto too, from 254 on.
It is not the TCK, which nobody has run. Ids are those of the specification, without `tck-id-`.
"""


def lines_of(verdicts: Mapping[str, Judgement]) -> list[str]:
    """The table, in Markdown."""
    passed = sum(judgement.result == "pass" for judgement in verdicts.values())
    rows = [
        f"| `{statement}` | {judgement.result}{f': {judgement.why}' if judgement.why else ''} |"
        for statement, judgement in sorted(verdicts.items())
    ]
    summary = f"{passed} of {len(verdicts)} pass, {len(failures(verdicts))} fail."
    return [
        BEGIN,
        "",
        *INTRODUCTION.splitlines(),
        "",
        summary,
        "",
        "| Statement | Result |",
        "|---|---|",
        *rows,
        "",
        END,
    ]


def with_table(page: str, lines: Sequence[str]) -> str:
    """A page with the table between its marks, or at its end."""
    before, mark, rest = page.partition(BEGIN)
    after = rest.partition(END)[2] if mark else "\n"
    return before.rstrip("\n") + "\n\n" + "\n".join(lines) + after


def table_in(page: str) -> list[str]:
    """The table as a page has it."""
    return [BEGIN, *page.partition(BEGIN)[2].partition(END)[0].splitlines()[1:], END]


def judge(traces: Sequence[Trace]) -> dict[str, Judgement]:
    """The results over all scenarios."""
    return merge(check(trace) for trace in traces)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when no statement fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sparkplug.table")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="writes the table into a page")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="oneweb-sparkplug-") as directory:
        verdicts = judge(asyncio.run(scenarios.tell_all(Path(directory))))
    lines = lines_of(verdicts)
    print("\n".join(lines))
    if options.write:
        options.write.write_text(with_table(options.write.read_text(), lines))
    return 1 if failures(verdicts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
