"""Kill -9 at random moments, again and again: `python -m tests.kill_rounds KILLS [SEED]` plays a campaign.

Before each kill every terminal changes, so that hundreds of messages are on their way; most kills fall among them.
The bridge is started with 20 or 100 messages in flight and both protocols in turn. After each kill it is counted how
many messages come again, whatever their topic: at most 200. After each `KILLS_A_STAGE` kills all must be as the API
says, and nothing lost, invented or out of order.
"""

import asyncio
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tests.campaign.judging import REPEATED
from tests.fault_bench import Stage, set_up
from tests.recording import Line

KILLS_A_STAGE = 25
TERMINALS = 120
FIRST_MESSAGE_WITHIN_S = 8.0
WINDOWS = (20, 100)
BROKER = f"max_inflight_messages {max(WINDOWS)}\n"
REMOVAL = {"after_missing": 1, "after_time": "0s"}
"""So that what leaves the fleet shortly before the end is removed by it."""
PROTOCOLS = ("5", "5", "3.1.1")
BESIDE = ("oneweb/bridge/", "homeassistant/")
"""Beginnings of topics that do not come from the journal: status, commands and announcements are said anew."""
PROBE = "oneweb/bridge/probe"
FORECAST = "/forecast/"
"""Part of topics that are calculated and published anew after a start."""


class Figures(msgspec.Struct):
    """What a campaign showed: messages that came again in each connection after a kill, and violations."""

    repeats: list[int] = []
    messages: int = 0
    findings: list[str] = []

    def __str__(self) -> str:
        """One line for the end of a campaign."""
        amid = sum(count > 0 for count in self.repeats)
        middle = statistics.median(self.repeats) if self.repeats else 0
        return (
            f"{len(self.repeats)} connections after kills, {self.messages} messages: at most "
            f"{max(self.repeats, default=0)} came again in one (median {middle:g}, none in "
            f"{len(self.repeats) - amid}), {len(self.findings)} violations"
        )


def count_repeats(lines: Iterable[Line]) -> tuple[int, list[int]]:
    """How many messages of the journal were heard, and how many of each connection had been heard before it.

    A connection begins with a probe of another process than the one before. A retained message comes again where its
    topic had that content just before: a record may well be again what it was once.
    """
    known: set[tuple[str, bytes]] = set()
    last: dict[str, bytes] = {}
    count, repeats, process = 0, [0], None
    for line in lines:
        if line.topic == PROBE:
            if process != (process := json.loads(line.payload)["process"]):
                repeats.append(0)
        elif is_from_journal(line):
            content = (line.topic, line.payload)
            count += 1
            repeats[-1] += last.get(line.topic) == line.payload if line.retain else content in known
            known.add(content)
            last[line.topic] = line.payload
    return count, repeats


def is_from_journal(line: Line) -> bool:
    return not line.note and not line.topic.startswith(BESIDE) and FORECAST not in line.topic


async def play_stage(directory: Path, seed: int, kills: int) -> Figures:
    """So many kills in the life of one database."""
    async with set_up(directory, seed, terminals=TERMINALS, broker_conf=BROKER) as stage:
        for number in range(kills):
            await _live_and_die(stage, number)
        stage.mended()
        await stage.start(mqtt=_way(kills), removal=REMOVAL)
        result = await stage.finish(removal=(1, 0.0, 5))
        messages, repeats = count_repeats(stage.recorder.lines)
    many = [count for count in repeats if count > REPEATED]
    findings = [f"{count} messages came again in one connection, more than {REPEATED}" for count in many]
    # Nothing stands before the first probe, and nothing can come again in the first connection.
    return Figures(repeats[2:], messages, result.findings + findings)


def _way(number: int) -> dict[str, str | int]:
    return {"window": WINDOWS[number % len(WINDOWS)], "protocol": PROTOCOLS[number % len(PROTOCOLS)]}


async def _live_and_die(stage: Stage, number: int) -> None:
    """One life: everything changes, and the bridge is killed a while after its first message, or before it."""
    for terminal in stage.api.truth("terminals"):
        stage.api.fleet("set_state", id=terminal["id"], state=stage.chance.choice(("online", "offline", "degraded")))
    before = len(stage.recorder.lines)
    await stage.start(mqtt=_way(number), removal=REMOVAL)
    if stage.chance.random() < 0.2:
        await asyncio.sleep(stage.chance.uniform(0.2, 2.0))
    else:
        await stage.until(
            lambda: any(is_from_journal(line) for line in stage.recorder.lines[before:]), FIRST_MESSAGE_WITHIN_S
        )
        await asyncio.sleep(stage.chance.uniform(0, 0.5))
    await stage.kill()
    stage.api.advance(stage.chance.uniform(0, 60))


async def campaign(kills: int, seed: int) -> Figures:
    """Plays stages until so many kills are done. Prints one line for each."""
    whole = Figures()
    chance = random.Random(seed)
    for begin in range(0, kills, KILLS_A_STAGE):
        stage_seed = chance.randrange(1 << 30)
        with tempfile.TemporaryDirectory(prefix="oneweb-kills-") as place:
            figures = await play_stage(Path(place), stage_seed, min(KILLS_A_STAGE, kills - begin))
        print(f"seed {stage_seed}: {figures}", *figures.findings, sep="\n  ", flush=True)
        whole.repeats += figures.repeats
        whole.messages += figures.messages
        whole.findings += figures.findings
    return whole


def main(arguments: list[str]) -> int:
    """The exit code: 0 when nothing was violated."""
    kills, seed = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 1
    whole = asyncio.run(campaign(kills, seed))
    print(whole)
    return 1 if whole.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
