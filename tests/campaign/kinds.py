"""The kinds of rounds of the fault campaign: one by one in the tests, and for long in `make soak`."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

from tests import rounds_bridge, rounds_broker, rounds_disk
from tests.campaign import days
from tests.campaign.faults_bridge import ALL_POINTS, crash_at
from tests.campaign.playing import alone
from tests.fault_bench import RoundResult
from tests.sparkplug import rounds

Run = Callable[[Path, int], Awaitable[RoundResult]]


class Kind(msgspec.Struct, frozen=True):
    """One kind of round: what runs it, how often it comes compared with others, and its fault."""

    run: Run
    weight: float
    fault: str


KINDS: dict[str, Kind] = {
    "kill": Kind(
        alone("bridge killed", is_cold=True, seconds=10.0), 3.0, "kill -9 at random moments, MQTT 5 and 3.1.1"
    ),
    **{
        f"crash {point}": Kind(alone(crash_at(point), is_cold=True), 1.0, f"kill -9 at the point {point}, twice")
        for point in ALL_POINTS
    },
    "crash restoring": Kind(rounds_bridge.crashed_restoring, 1.0, "kill -9 while retained topics are restored"),
    "crash migrating": Kind(rounds_bridge.crashed_migrating, 0.5, "kill -9 within and after a migration"),
    **{
        f"crash {point}": Kind(
            partial(rounds_bridge.crashed_folding, point), 0.5, f"kill -9 within folding, at the point {point}"
        )
        for point in ("folding_scan", "folding_chunks", "folding_end", "after_fold")
    },
    "crash removing": Kind(
        partial(rounds_bridge.crashed_removing, "removing"), 0.5, "kill -9 within the transaction of a removal"
    ),
    "crash after_removal": Kind(
        partial(rounds_bridge.crashed_removing, "after_removal"), 0.5, "kill -9 after that transaction"
    ),
    "crash storing_command": Kind(
        partial(rounds_bridge.crashed_with_command, "storing_command"), 0.5, "kill -9 while a command is stored"
    ),
    "crash after_command": Kind(
        partial(rounds_bridge.crashed_with_command, "after_command"), 0.5, "kill -9 after a command was stored"
    ),
    "sigterm": Kind(rounds_bridge.told_to_stop, 1.0, "SIGTERM during polls and publishing, and a second one"),
    "broker restart": Kind(alone("broker restarted", is_cold=True), 1.0, "the broker stops in order and starts again"),
    "broker kill, kept": Kind(alone("broker killed", is_cold=True), 1.0, "kill -9 of a broker with persistence"),
    "broker kill, empty": Kind(
        alone("broker lost state", is_cold=True), 1.0, "kill -9 of a broker without persistence"
    ),
    "broker away": Kind(alone("broker away", seconds=8.0), 1.0, "no broker for 8 s"),
    "broker away 5 min": Kind(alone("broker away", seconds=300.0), 0.2, "no broker for 5 minutes"),
    "cut": Kind(alone("link cut", is_cold=True), 1.0, "the connection is cut within messages, a dozen times"),
    "half-open": Kind(alone("link half-open"), 0.3, "the connection swallows everything in both directions"),
    "slow link": Kind(alone("link slow", is_cold=True), 1.0, "20 kB/s in each direction"),
    "puback late": Kind(alone("puback late", is_cold=True), 1.0, "PUBACKs up to 1.5 s late, then a cut"),
    "puback withheld": Kind(alone("puback withheld"), 0.3, "PUBACKs never come on a living connection"),
    "puback refused": Kind(alone("some refused", is_cold=True), 1.0, "PUBACKs with error codes"),
    "acl, MQTT 5": Kind(partial(rounds_broker.denied, protocol="5"), 0.5, "access rules deny everything"),
    "acl, MQTT 3.1.1": Kind(
        partial(rounds_broker.denied, protocol="3.1.1"), 0.5, "the same, where the broker cannot say so"
    ),
    "acl in part": Kind(rounds_broker.denied_in_part, 0.5, "access rules deny one class of topics for a while"),
    "acl of a record": Kind(rounds_broker.denied_a_record, 0.5, "access rules deny the topics of one record"),
    "too large": Kind(alone("record too large", is_cold=True), 0.5, "a message over the broker's limit"),
    "taken over": Kind(alone("taken over", is_cold=True), 0.5, "the same client id elsewhere"),
    "api nonsense": Kind(alone("api nonsense"), 1.0, "HTML, null, NaN, depth, redirects"),
    "api lies": Kind(alone("api lies"), 1.0, "pages repeated, missing, half empty"),
    "api status": Kind(alone("api status"), 1.0, "status codes 400 to 504"),
    "api limits": Kind(alone("api limits"), 0.5, "429 with nonsense in Retry-After"),
    "api floods": Kind(alone("api floods"), 1.0, "bombs, huge bodies, trickles, silence"),
    "api cut": Kind(alone("api cut"), 1.0, "bodies cut at any byte"),
    "api down": Kind(alone("api down"), 0.5, "5xx for every request"),
    "api unauthorized": Kind(alone("api unauthorized"), 0.5, "401 or 403 for every request"),
    "commits fail": Kind(alone("commits fail"), 1.0, "I/O errors on commits"),
    "disk full": Kind(rounds_disk.disk_full, 1.0, "no room for the database"),
    "database locked": Kind(alone("database locked"), 0.5, "another process holds the database for 13 s"),
    "database corrupt": Kind(rounds_disk.corrupt, 0.5, "the file is damaged, empty, or something else"),
    **{
        f"clock jumps by {unit}s": Kind(
            alone(f"clock a {unit} off"), 0.5, f"the clock jumps {unit}s ahead and back, again and again"
        )
        for unit in ("hour", "day", "year")
    },
    "sparkplug": Kind(
        rounds.disturbed, 1.0, "with Sparkplug: kill -9, restarts of broker and host, cuts; ten in a round"
    ),
    **{
        f"day {actor}": Kind(
            partial(days.play_apart, actor), 0.5, f"a simulated day with faults that overlap, one of them: {names}"
        )
        for actor, names in days.ACTORS.items()
    },
    "stopped 2 h": Kind(rounds_disk.stopped_for_two_hours, 0.5, "the process is stopped for two hours"),
}
"""What is played, by name. Most are one fault of the catalogue, alone. Not timelines, with the reason:

- crash restoring, migrating, folding, removing and with a command: each wants one state that is prepared in order (a
  broker that lost its topics, a database of version 1, samples of days that are over, a terminal that is missing, one
  retained command), and exactly one crash at one point after that;
- sigterm: four runs one after the other, stopped at other stages and by a second signal, each with its exit code;
- acl: the broker's own access rules, which the proxy of the timelines cannot give to MQTT 3.1.1;
- disk full: in every other round a small file system is mounted for the database, and health must say so and not;
- database corrupt: no bridge runs on such a file; it must refuse each of three with one sentence;
- stopped 2 h: process, API and wall clock jump together;
- sparkplug: has a host, a stage and a judge of its own;
- day: a process of its own with virtual time, see `tests.campaign.days`. Its timelines are drawn from the seed.
"""
