"""Any story of polls, faults, crashes and lost connections against a model that knows only the promises.

The real reading, comparing, storing, journal, window, topics and the session's judgement of the head run over
SQLite on disk. The API and the broker are figures here, because each step of theirs is chosen: which page is
cut, at which await the bridge dies, which answer comes late.
Once the quick profile is not enough: ONEWEB_BRIDGE_EXAMPLES=2000 pytest tests/test_model_based.py.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from multidict import CIMultiDict, CIMultiDictProxy

from oneweb_bridge.api.answers import Answer
from oneweb_bridge.api.errors import ApiError, Unavailable
from oneweb_bridge.clock import Clock
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.bounds import Bounds
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.handshake import Handshake
from oneweb_bridge.mqtt.lane import Outgoing
from oneweb_bridge.mqtt.retained import messages_to_restore
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.mqtt.window import SendWindow
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.store import journal, store
from tests.cancelling import cancel_until_done

TERMINALS, QUALITY = "user_terminals", "ut_signal_quality"
PAGE = 2
AFTER, AFTER_TIME, COUNT, SHARE, HOLD_FOR = 2, 60, 1, 0.1, 3600
BASE = 1_750_000_000
YEAR = 365 * 86_400
Doc = dict[str, Any]
IDS = st.sampled_from(["T1", "T2", "T3"])
FAULTS = st.sampled_from(["none"] * 3 + ["cut", "lost page", "total changes", "twice", "unreadable"])


def configured(name_path: str) -> Config:
    """The configuration of the story; `name_path` is what a remap changes."""
    page = {"limit": PAGE}
    return msgspec.structs.replace(
        parse(
            json.dumps(
                {
                    "api": {"client_id": "i", "client_secret": "s"},
                    "polling": {TERMINALS: {"page": page, "map": {"name": name_path}}, QUALITY: {"page": page}},
                    "removal": {
                        "after_missing": AFTER,
                        "after_time": AFTER_TIME,
                        "hold_above": {"count": COUNT, "share": SHARE},
                        "hold_for": HOLD_FOR,
                    },
                }
            ),
            {},
        )
    )


class Clocks:
    """The time that is true, the clocks of the bridge's machine, and what its steady time has to be.

    The wall clock may be set to anything at any moment. Steady time does not follow it: it is the time that has
    passed, without what passed between the last that was noted and the next start of the machine.
    """

    def __init__(self) -> None:
        self.seconds = float(BASE)
        self.wall_error = 0.0
        self.boot, self._booted_at = 0, 0.0
        self._noted = round(self.seconds * 1000)
        self._lost = 0

    def wall(self) -> float:
        return self.seconds + self.wall_error

    def machine(self) -> Clock:
        """What a process that starts now asks."""
        return Clock(self.wall, lambda: self.seconds - self._booted_at, f"boot {self.boot}")

    def steady(self) -> int:
        """Steady time in ms."""
        return round(self.seconds * 1000) - self._lost

    def note(self) -> None:
        """Something was written to the journal now."""
        self._noted = self.steady()

    def reboot(self) -> None:
        """The machine starts again: steady time goes on a moment after what was noted last."""
        self.boot, self._booted_at = self.boot + 1, self.seconds
        self._noted += 1
        self._lost = round(self.seconds * 1000) - self._noted


class Fleet:
    """The API as far as `fetch` asks it: a fleet, its time, and what goes wrong with the next listing."""

    def __init__(self, clocks: Clocks) -> None:
        self.clocks = clocks
        self.terminals: dict[str, Doc] = {}
        self.samples: dict[str, dict[int, float]] = defaultdict(dict)
        self.fault = "none"

    def url(self, path: str) -> str:
        return f"https://api.example{path}"

    def now(self) -> int:
        return round(self.clocks.seconds * 1000)

    def earlier_now(self) -> int:
        return min(self.now(), round(self.clocks.wall() * 1000))

    def bounds(self) -> Bounds:
        return Bounds(max(self.now(), round(self.clocks.wall() * 1000)))

    def listing(self, path: str) -> list[Doc]:
        """Everything that a whole listing shows."""
        if "signalQuality" not in path:
            return list(self.terminals.values())
        return [
            {"id": id, "measurement": [_measured(*value) for value in values.items()]}
            for id, values in self.samples.items()
        ]

    async def get(self, path: str, params: Mapping[str, str], empty_status: Collection[int] = ()) -> Answer:
        await asyncio.sleep(0)
        items, at = self.listing(path), int(params["offset"])
        total = len(items) + (at > 0 and self.fault == "total changes")
        part = items[at : at + PAGE]
        if self.fault == "cut" and at >= PAGE * (len(items) > PAGE):
            raise Unavailable("cut")
        if self.fault == "lost page" and at + PAGE >= len(items):
            part = part[:-1]
        if self.fault == "twice" and at > 0:
            part = [items[0], *part[1:]]
        if self.fault == "unreadable" and at == 0 and part:
            part = [{"id": ["no key"]}, *part[1:]]
        headers = CIMultiDictProxy(CIMultiDict({"X-Total-Count": str(total)}))
        return Answer(200, json.dumps(part).encode(), headers, self.now())

    def breaks(self, path: str) -> bool:
        """Whether the fault makes the next listing incomplete."""
        count = len(self.listing(path))
        match self.fault:
            case "cut":
                return True
            case "lost page":
                return count > 0
            case "total changes" | "twice":
                return count > PAGE
            case "unreadable":
                return count == 1
        return False


def _measured(ts: int, value: float) -> Doc:
    return {"timestamp": rfc3339(ts), "performanceIndicator": [{"name": "sinr", "value": value}]}


class Broker:
    """A broker that may be slow, refuse, and forget; and a subscriber who hears all that it takes."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.received: dict[str, list[bytes]] = defaultdict(list)

    def take(self, message: Message) -> None:
        self.received[message.topic].append(message.payload)
        if message.retain:
            self.retained.pop(message.topic, None)
            if message.payload:
                self.retained[message.topic] = message.payload


class Bridge(RuleBasedStateMachine):
    """The rules are what may happen; the invariants what is promised."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="oneweb-machine-"))
        self.runner = asyncio.Runner()
        self.clocks = Clocks()
        self.fleet, self.broker = Fleet(self.clocks), Broker()
        self.name_path = "name"
        # What the promises say is known: the announced records, who is missing, and every version of a sample.
        self.known: dict[str, Doc] = {}
        self.missing: dict[str, tuple[int, int]] = {}
        self.versions: dict[str, dict[int, float]] = defaultdict(dict)
        self.is_listed = False
        self.judged_to = 0
        self.cursor = 0
        self.accepted: set[tuple[int, str]] = set()
        self.row_ids: dict[int, list[str]] = {}
        self.run(self._open())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.run(self.stack.aclose())
            self.runner.close()
            shutil.rmtree(self.place)

    # ── opening, and dying ─────────────────────────────────────────────────────────────────────

    async def _open(self) -> None:
        self.stack = AsyncExitStack()
        path = self.place / "bridge.db"
        clock = self.clocks.machine()
        self.store = await self.stack.enter_async_context(store.open_store(path, clock))
        self.rows = await self.stack.enter_async_context(journal.open_journal(path, "mqtt"))
        for db in (self.store._connections._writer, self.rows._connection):
            await db.execute("PRAGMA synchronous = OFF")
        self.tree = TopicTree("oneweb", "main", self.store.journal_id, self.store.earlier)
        settings = configured(self.name_path)
        api: Any = self.fleet
        self.polls = PollRunner(self.store, api, settings, clock)
        await self._connect(8)

    async def _connect(self, size: int) -> None:
        """A new connection: what the session decides about the head, then the restored topics, then a fresh window."""
        positions = await self.rows.positions()
        cursor = positions.cursor
        self.window = SendWindow(size, positions, self.tree.class_of)
        context: Any = SimpleNamespace(tree=self.tree, journal=self.rows, instance="main", has_published=False)
        unused: Any = None
        handshake = Handshake(context, unused, unused)
        if (head := self.broker.retained.get(self.tree.head)) is not None:
            handshake.on_head(head)
        known = await handshake.compare_head(cursor)
        cursor, restore_start = known.cursor, known.restore_start
        if cursor > positions.cursor:
            self.window.skip_to(cursor)
        await self.rows.identity.clear_head_bound()
        if restore_start < cursor:
            async for message in messages_to_restore(
                self.tree, self.rows, restore_start, cursor, self.window.lanes.position_of
            ):
                self.broker.take(message.message)
        self._say_head(cursor)
        self.at = cursor
        self.flying: list[Outgoing] = []

    def _say_head(self, seq: int) -> None:
        head = {"journal": self.tree.journal_id, "instance": "main", "seq": seq}
        self.broker.take(Message(self.tree.head, json.dumps(head).encode(), retain=True))

    @rule(
        size=st.sampled_from([1, 3, 8]),
        forgets=st.sampled_from(["nothing", "nothing", "all", "some"]),
        keep=st.integers(0, 5),
    )
    def lose_connection(self, size: int, forgets: str, keep: int) -> None:
        """The connection breaks, and the broker may have lost what it kept since some row."""
        if forgets == "all":
            self.broker.retained.clear()
        elif forgets == "some" and self.tree.head in self.broker.retained:
            self._forget_since(max(0, self.cursor - keep))
        self.run(self._connect(size))

    def _forget_since(self, seq: int) -> None:
        """The broker comes back with what it kept when the head stood at `seq`."""
        kept = dict(self.broker.retained)
        self.broker.retained.clear()
        for row in self.run(self._all_rows()):
            if row.seq <= seq:
                for message in self.tree.messages_of_row(row):
                    if message.retain and message.payload:
                        self.broker.retained[message.topic] = message.payload
                    elif message.retain:
                        self.broker.retained.pop(message.topic, None)
        if self.tree.head in kept:
            head = json.loads(kept[self.tree.head]) | {"seq": seq}
            self.broker.retained[self.tree.head] = json.dumps(head).encode()

    async def _all_rows(self) -> list[Any]:
        rows: list[Any] = []
        while page := await self.rows.after(rows[-1].seq if rows else 0):
            rows += page
        return rows

    @rule(machine=st.sampled_from([False, False, True]))
    def restart(self, *, machine: bool) -> None:
        """The process ends anywhere, alone or with its machine, and comes again."""
        self.run(self.stack.aclose())
        if machine:
            self.clocks.reboot()
        self.run(self._open())

    # ── the fleet ──────────────────────────────────────────────────────────────────────────────

    @rule(
        id=IDS, state=st.sampled_from(["online", "offline"]), name=st.sampled_from(["a", "b"]), seen=st.integers(0, 3)
    )
    def change(self, id: str, state: str, name: str, seen: int) -> None:
        seen_at = rfc3339((BASE + seen) * 1000)
        self.fleet.terminals[id] = {
            "id": id,
            "resourceState": state,
            "name": name,
            "serialNumber": f"N{name}",
            "lastSeenDate": seen_at,
        }

    @rule(states=st.lists(st.tuples(IDS, st.sampled_from(["online", "offline", "degraded"])), min_size=1, max_size=3))
    def live(self, states: list[tuple[str, str]]) -> None:
        """Some terminals change, again and again, and each time a poll sees it: rows for one topic wait together."""
        for number, (id, state) in enumerate(states):
            self.change(id, state, "ab"[number % 2], number % 4)
            self.poll_terminals("none", None)

    @rule(id=IDS)
    def vanish(self, id: str) -> None:
        self.fleet.terminals.pop(id, None)

    @rule()
    def empty(self) -> None:
        self.fleet.terminals.clear()

    @rule(id=IDS, at=st.integers(0, 6), value=st.integers(1, 3))
    def measure(self, id: str, at: int, value: int) -> None:
        self.fleet.samples[id][(BASE - 1000 + at) * 1000] = float(value)

    @rule(seconds=st.sampled_from([1, 30, 61, 3601]))
    def wait(self, seconds: int) -> None:
        self.clocks.seconds += seconds

    @rule(error=st.sampled_from([0, -20, 3600, -86_400, 10 * YEAR, -10 * YEAR]))
    def set_clock(self, error: int) -> None:
        """Somebody sets the wall clock, rightly or wrongly."""
        self.clocks.wall_error = error

    @rule(path=st.sampled_from(["name", "serialNumber"]))
    def remap(self, path: str) -> None:
        self.name_path = path
        self.polls.reconfigure(configured(path))

    # ── polls ──────────────────────────────────────────────────────────────────────────────────

    @rule(fault=FAULTS, steps=st.none() | st.integers(0, 120))
    def poll_terminals(self, fault: str, steps: int | None) -> None:
        """A poll that may fail, and may be ended at any await."""
        self.fleet.fault = fault
        self.run(self._poll_terminals(steps))

    async def _poll_terminals(self, steps: int | None) -> None:
        memory = await self.store.progress.load(TERMINALS)
        ended, now = await self._polled(TERMINALS, steps), self.clocks.steady()
        self.is_listed |= ended != "failed"
        written = await self._new_rows()
        # What was kept until the inventory knows its id comes with the inventory.
        self._fold_samples(written)
        rows = [row for row in written if row.what in ("added", "changed", "removed")]
        whole = not self.fleet.breaks("") or ended == "cancelled"
        listed = {} if self.fleet.breaks("") else self._listed()
        after = await self.store.progress.load(TERMINALS)
        expected = self._fold_told(rows, listed, initial=not memory.complete, whole=whole)
        if ended == "failed":
            assert not expected
            assert self.fleet.breaks("")
            return
        gone = {id for what, id in expected if what == "removed"}
        self._judge_removals(gone, listed, memory, now, ended)
        if ended == "done":
            assert not self.fleet.breaks("")
            # Nothing is lost: what is announced is what was shown, but for what nobody could read.
            assert {id: self.known[id] for id in listed} == listed
            assert after.complete
        assert after.held_since in {0, memory.held_since, now}
        await self._count_missing(now)

    async def _new_rows(self) -> list[Any]:
        """What the poll that just ended has written, each row at the steady time of now."""
        rows = await self.rows.after(self.judged_to)
        self.judged_to = await self.rows.head()
        assert [row.seq for row in rows][-1:] in ([], [self.judged_to])
        assert {row.at for row in rows} <= {self.clocks.steady()}
        if rows:
            self.clocks.note()
        return rows

    def _listed(self) -> dict[str, Doc]:
        """What the listing shows, as the promises name it."""
        items = list(self.fleet.terminals.values())
        shown = items[1:] if self.fleet.fault == "unreadable" else items
        return {
            listed["id"]: {"imei": listed["id"], "state": listed["resourceState"], "name": listed[self.name_path]}
            for listed in shown
        }

    def _fold_told(
        self, rows: list[Any], listed: dict[str, Doc], *, initial: bool, whole: bool
    ) -> list[tuple[str, str]]:
        """Folds events into what is known. Each must follow from what was known, and from what was shown."""
        published = []
        for row in rows:
            body = json.loads(row.body)
            record = {name: body["record"].get(name) for name in ("imei", "state", "name")}
            published.append((row.what, row.id))
            if row.what == "removed":
                assert self.known.pop(row.id) == record
                assert row.id not in listed
                continue
            assert whole
            assert record == listed[row.id], "nothing is announced that the API did not say"
            assert body["initial"] == initial
            assert (row.what == "added") == (row.id not in self.known)
            before = self.known.get(row.id, {})
            if row.what == "changed":
                changed = {n: c for n, c in body["changed"].items() if n in record}
                expected = {n: {"from": before[n], "to": record[n]} for n in record if before[n] != record[n]}
                assert changed == expected
                assert expected or "serial_number" in body["changed"] or body.get("remapped")
            self.known[row.id] = record
        assert len(set(published)) == len(published)
        return published

    def _judge_removals(self, gone: set[str], listed: dict[str, Doc], memory: Any, now: int, ended: str) -> None:
        """What is removed was missing often and long enough, and not too much at once, unless it was let go."""
        absent = {id for id in (*self.known, *gone) if id not in listed}
        if self.fleet.fault == "unreadable" and self.fleet.terminals:
            assert not gone
            return
        if not self.fleet.terminals and not memory.released:
            assert not gone, "an empty listing removes nothing"
            return
        due = set()
        for id in absent:
            count, since = self.missing.get(id, (0, now))
            if count + 1 >= AFTER and now - (since if count else now) >= AFTER_TIME * 1000:
                due.add(id)
        if not self.fleet.terminals:
            due = absent
        stored = len(self.known) + len(gone)
        waited = memory.held_since and now - memory.held_since >= HOLD_FOR * 1000
        held = len(due) > max(COUNT, int(SHARE * stored)) and not memory.released and not waited
        expected = set() if held else due
        assert gone == expected if ended == "done" else gone in (set(), expected)

    async def _count_missing(self, now: int) -> None:
        """How often each is missing is private, but it grows by one a listing, and ends when the record is back.

        Since when stands as it was first noted, in steady time.
        """
        for id, count, since in await self.store.records.missing_counts_after("terminal", ""):
            before, first = self.missing.get(id, (0, 0))
            assert count in {before, before + 1, 0}
            assert since == (0 if count == 0 else first if before > 0 else now)
            self.missing[id] = (count, since)
        self.missing = {id: count for id, count in self.missing.items() if id in self.known}

    async def _polled(self, call: str, steps: int | None) -> str:
        """Polls as the poller does. Says whether it was done, has failed, or was cancelled at some await."""

        async def whole() -> None:
            outcome = await self.polls.poll(call)
            await self.store.progress.save(outcome.progress)

        task = asyncio.ensure_future(whole())
        if steps is not None:
            for _ in range(steps):
                await asyncio.sleep(0 if steps % 2 else 0.0001)
            await cancel_until_done(task)
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        except ApiError:
            return "failed"
        return "done"

    @rule(fault=FAULTS, steps=st.none() | st.integers(0, 120))
    def poll_samples(self, fault: str, steps: int | None) -> None:
        self.fleet.fault = fault
        self.run(self._poll_samples(steps))

    async def _poll_samples(self, steps: int | None) -> None:
        ended = await self._polled(QUALITY, steps)
        rows = self._fold_samples(await self._new_rows())
        if ended == "done":
            shown = [entry["id"] for entry in self.fleet.listing("signalQuality")]
            shown = shown[1:] if self.fleet.fault == "unreadable" else shown
            # Those of an id that a listed inventory never had are kept until it has: they may be another system's.
            matched = [id for id in shown if id in self.known or not self.is_listed]
            assert all(self.versions[id] == self.fleet.samples[id] for id in matched), "no sample is lost"
        else:
            assert ended == "cancelled" or not rows

    def _fold_samples(self, written: list[Any]) -> list[Any]:
        """Folds samples into the versions that are known, and returns their rows."""
        rows = [row for row in written if row.name == "signal_quality"]
        for row in rows:
            body = json.loads(row.body)
            before, value = self.versions[row.id], body["sinr_db"]
            assert self.fleet.samples[row.id][row.ts] == value, "nothing is invented"
            newest = row.what == "metric"
            assert not newest or row.ts >= max(before, default=0), "a metric never goes back in time"
            if before.get(row.ts) == value:
                # A correction of the newest goes to history and to metric.
                assert newest
                assert body.get("corrected")
            assert bool(body.get("corrected")) == (row.ts in before)
            before[row.ts] = value
        return rows

    @rule(
        gone=st.sampled_from([("T1",), ("T1", "T2"), ("T1", "T2", "T3")]),
        waits=st.lists(st.sampled_from([1, 61, 3601]), min_size=2, max_size=3),
        fault=FAULTS,
    )
    def miss(self, gone: tuple[str, ...], waits: list[int], fault: str) -> None:
        """Some or all of the fleet are missing from one listing after the other, and the last may be none."""
        for id in ("T1", "T2", "T3"):
            self.change(id, "online", "a", 0)
        self.poll_terminals("none", None)
        for id in gone:
            self.vanish(id)
        for seconds in waits:
            self.poll_terminals("none", None)
            self.wait(seconds)
        self.poll_terminals(fault, None)

    @rule(id=IDS, at=st.lists(st.integers(0, 6), min_size=2, max_size=3))
    def measure_while_gone(self, id: str, at: list[int]) -> None:
        """Samples come for a terminal that was removed, and others when it is back."""
        self.miss((id,), [61, 61], "none")
        self.measure(id, at[0], 1)
        self.poll_samples("none", None)
        self.change(id, "online", "a", 0)
        self.poll_terminals("none", None)
        for later in at[1:]:
            self.measure(id, later, 2)
            self.poll_samples("none", None)

    @rule(forgets=st.sampled_from(["all", "some"]), keep=st.integers(1, 9))
    def lose_the_broker(self, forgets: str, keep: int) -> None:
        """Everything was published, and the broker comes back without the newest of it."""
        self.settle()
        self.lose_connection(8, forgets, keep)
        self.settle()

    @rule()
    def release(self) -> None:
        """An operator lets held removals go."""

        async def released() -> None:
            memory = await self.store.progress.load(TERMINALS)
            await self.store.progress.save(msgspec.structs.replace(memory, released=True))

        self.run(released())

    # ── publishing ─────────────────────────────────────────────────────────────────────────────

    @rule(count=st.integers(1, 6))
    def offer(self, count: int) -> None:
        for row in self.run(self.rows.after(self.at, count)):
            self.window.offer_row(row.seq, self.tree.messages_of_row(row))
            self.at = row.seq

    @rule(count=st.integers(1, 6))
    def read_classes(self, count: int) -> None:
        """What waits because its class was refused is read from the journal again."""
        for lane in self.window.lanes.to_read(10):
            for row in self.run(self.rows.after(lane.read, count)):
                if lane.closes_at is None and not self.window.lanes.is_level(lane):
                    own = [m for m in self.tree.messages_of_row(row) if self.tree.class_of(m.topic) == lane.name]
                    self.window.offer_to_lane(lane.name, row.seq, own)

    @rule()
    def try_again(self) -> None:
        """The pauses of all that was refused are over."""
        for lane in list(self.window.lanes.by_class.values()):
            for outgoing in list(lane.paused):
                self.window.lanes.requeue(outgoing)
            self.window.lanes.allow_trial(lane.name)

    @precondition(lambda self: self.flying)
    @rule()
    def refuse_class(self) -> None:
        """Access rules were changed: everything that is under way of one class is refused."""
        name = self.tree.class_of(self.flying[0].message.topic)
        for outgoing in [outgoing for outgoing in self.flying if self.tree.class_of(outgoing.message.topic) == name]:
            self.flying.remove(outgoing)
            self.window.refuse(outgoing)

    @rule()
    def send(self) -> None:
        """What is sent the broker may have, also when its answer is never heard."""
        while (outgoing := self.window.next_to_send()) is not None:
            assert self.window.in_flight <= self.window.size
            self.flying.append(outgoing)
            self.broker.take(outgoing.message)

    @precondition(lambda self: self.flying)
    @rule(at=st.integers(0, 9), accepted=st.sampled_from([True, True, True, False]))
    def answer(self, at: int, accepted: bool) -> None:
        outgoing = self.flying.pop(at % len(self.flying))
        if accepted:
            self.window.acknowledge(outgoing)
            self.accepted.add((outgoing.seq, outgoing.message.topic))
        else:
            self.window.refuse(outgoing)

    @rule(
        answers=st.lists(st.integers(0, 9), max_size=6),
        noted=st.sampled_from(["no", "written", "answered"]),
        then=st.sampled_from(["goes on", "loses the connection", "dies"]),
    )
    def drain(self, answers: list[int], noted: str, then: str) -> None:
        """What a session does without a pause: reads on, sends, hears some answers, writes the cursor; and its end."""
        self.offer(6)
        self.send()
        for at in answers:
            if self.flying:
                self.answer(at, accepted=True)
                self.send()
        if noted != "no":
            self.commit(is_answered=noted == "answered")
            self.send()
        if then == "loses the connection":
            self.lose_connection(8, "nothing", 0)
        elif then == "dies":
            self.restart(machine=False)

    @rule(is_answered=st.booleans())
    def commit(self, is_answered: bool) -> None:
        """The positions are written; the window hears of it, unless the process dies in between."""
        positions = self.window.positions()
        self.run(self.rows.save(positions))
        if is_answered:
            self.window.on_saved(positions)
            self._say_head(positions.cursor)

    @rule()
    def settle(self) -> None:
        """Without a fault everything arrives, and a new subscriber is given what was said last."""
        for _ in range(2000):
            self.offer(6)
            self.read_classes(6)
            self.try_again()
            self.send()
            while self.flying:
                self.answer(0, accepted=True)
            self.commit(is_answered=True)
            if self.window.state() == "idle" and not self.window.lanes and self.at == self.run(self.rows.head()):
                break
        assert self.run(self.rows.cursor()) == self.run(self.rows.head())
        expected = self._expected()
        assert {t: self._reached(t, contents) for t, contents in expected.items()} == {
            t: len(s) - 1 for t, s in expected.items()
        }
        last = {topic: contents[-1][0] for topic, contents in expected.items() if contents[-1][1] and contents[-1][0]}
        assert {t: p for t, p in self.broker.retained.items() if t != self.tree.head} == last
        stored = self.run(self.rows.retained.records_between(0, 1 << 62))
        assert {self.tree.record_message(kind, id, doc).payload for _, kind, id, doc in stored} <= set(last.values())

    def _expected(self) -> dict[str, list[tuple[bytes, bool]]]:
        """What the journal says on each topic, in its order: payload and whether it is retained."""
        expected: dict[str, list[tuple[bytes, bool]]] = defaultdict(list)
        for row in self.run(self._all_rows()):
            for message in self.tree.messages_of_row(row):
                expected[message.topic].append((message.payload, message.retain))
        return expected

    def _reached(self, topic: str, contents: list[tuple[bytes, bool]]) -> int:
        """How far a topic was heard: each message is the last one again, or the one after it; none is left out."""
        at = -1
        for payload in self.broker.received[topic]:
            if at >= 0 and contents[at][0] == payload:
                continue
            at += 1
            assert at < len(contents), f"{topic}: nothing was left to say"
            assert contents[at][0] == payload, f"{topic} went back, or left something out"
        return at

    @invariant()
    def cursor_is_behind_what_was_acknowledged(self) -> None:
        """The cursor never goes back, and no position is behind what the broker has not accepted."""
        positions = self.run(self.rows.positions())
        assert positions.cursor >= self.cursor
        for row in self.run(self._all_rows()):
            for message in self.tree.messages_of_row(row):
                waiting = positions.waiting.get(self.tree.class_of(message.topic))
                if row.seq <= (positions.cursor if waiting is None else waiting.seq):
                    assert (row.seq, message.topic) in self.accepted
        self.cursor = positions.cursor


def test_no_sequence_of_faults_loses_or_reorders_messages() -> None:
    """Whatever happens in whatever order: nothing lost, nothing invented, no topic back."""
    run_state_machine_as_test(
        Bridge,
        settings=hypothesis.settings(
            max_examples=int(os.environ.get("ONEWEB_BRIDGE_EXAMPLES", "25")),
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
