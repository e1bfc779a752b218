"""What the faults of a round allow, and no more: true stories are found true, planted faults within pairs are found."""

import copy
import json
from typing import Any

import pytest

from tests.campaign import catalogue
from tests.campaign.judging import BASE, OTHER_BASE, Allowance, Evidence, allow_outgrown, judge
from tests.recording import Line, Taken
from tests.test_checker import Bridge, measured, parts, terminal, wall

Json = dict[str, Any]
EVER = (0.0, 1e12)


class ConnectedBridge(Bridge):
    """The bridge of the checker's tests, with the time of each message, and with faults around it."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = "j"
        self.lines: list[Line] = []
        self.taken: list[Taken] = []
        self.is_lossy = False
        """Whether the broker loses what it acknowledges."""
        self.base = BASE
        self.connect()

    def say(self, topic: str, body: Any, *, retain: bool = False) -> None:
        """One message, acknowledged, and heard unless the broker loses it."""
        if isinstance(body, dict) and str(body.get("id", "")).startswith("j:"):
            body = body | {"id": f"{self.journal}:{body['id'][2:]}"}
        super().say(topic, body, retain=retain)
        _, payload, _ = self.received[-1]
        topic = self.base + topic.removeprefix(BASE)
        self.taken.append(Taken(wall(self._now), topic, payload, retain))
        if not self.is_lossy:
            self.lines.append(Line(wall(self._now), topic, payload, retain))

    def connect(self) -> None:
        """The first message of a connection."""
        self.say("oneweb/bridge/probe", {"nonce": f"n{len(self.lines)}"})

    def restart_broker(self) -> None:
        """The broker is away for a moment, and has what it had not lost."""
        self._now += 5
        self.lines.append(Line(wall(self._now), note="lost"))
        self._now += 5
        self.lines.append(Line(wall(self._now), note="connected"))
        self.is_lossy = False
        self._now += 5
        self.connect()

    def move(self, base: str) -> None:
        """Goes on below another base: publishes there what is retained, and then clears what it has left."""
        left, self.base = self.base, base
        self.connect()
        for topic, record in list(self.retained.items()):
            self.say(topic, record, retain=True)
        for topic in self.retained:
            line = Line(wall(self._now), left + topic.removeprefix(BASE), b"", retain=True)
            self.lines.append(line)
            self.taken.append(Taken(line.at, line.topic, line.payload, line.retain))

    def back_up(self) -> tuple[Json, Json]:
        """What a backup has of the records and of what is retained."""
        return copy.deepcopy(self._known), copy.deepcopy(self.retained)

    def restore(self, backup: tuple[Json, Json], journal: str = "k") -> float:
        """The bridge goes on with a backup, and publishes what is retained there. Returns when."""
        self._now += 5
        at = wall(self._now)
        self._now += 5
        self._known, known = copy.deepcopy(backup)
        self.journal = journal
        self.connect()
        for topic, record in known.items():
            self.say(topic, record, retain=True)
        return at

    def findings_of(self, *allowances: Allowance, still_since: float = EVER[1]) -> list[str]:
        """What is found."""
        evidence = Evidence(
            lines=self.lines,
            taken=self.taken,
            ledger=self.ledger,
            retained=self.retained,
            still_since=still_since,
        )
        return judge(evidence, allowances)[1]


def pair(*allowances: Allowance) -> list[Allowance]:
    """Allowances of a round; each names a fault that there is."""
    assert all(allowance.fault in catalogue.FAULTS for allowance in allowances)
    return list(allowances)


FORGETS = Allowance(fault="broker killed", forgets=True)
REPEATS = Allowance(fault="some refused", repeats=True)
TOO_LARGE = Allowance(fault="record too large", refused=("oneweb/terminal/a",))


def kinds(findings: list[str]) -> set[str]:
    """How the findings are called."""
    return {finding.split(":")[0] for finding in findings}


# ── a broker that forgets ──────────────────────────────────────────────────────────────────────


def forgetful() -> ConnectedBridge:
    """A broker that loses a change which it had acknowledged, and its retained topic comes again."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"), terminal("b"))
    bridge.is_lossy = True
    bridge.terminals(terminal("a", name="x"), terminal("b"))
    bridge.restart_broker()
    bridge.say("oneweb/terminal/a/state", bridge.retained["oneweb/terminal/a/state"], retain=True)
    bridge.terminals(terminal("a", name="y"), terminal("b"))
    return bridge


def test_what_a_killed_broker_forgot_is_its_own_loss() -> None:
    """Only the fault that kills the broker excuses it, whatever else was in force."""
    assert forgetful().findings_of(*pair(FORGETS)) == []
    assert forgetful().findings_of(*pair(FORGETS, REPEATS)) == []
    assert "broken chain" in kinds(forgetful().findings_of(*pair(REPEATS)))
    assert "broken chain" in kinds(forgetful().findings_of())


def test_what_was_never_acknowledged_is_lost_beside_a_killed_broker_too() -> None:
    """A change that the bridge never sent is not the broker's loss."""
    bridge = forgetful()
    del bridge.taken[[m.topic for m in bridge.taken].index("oneweb/terminal/a/event/changed")]

    assert "broken chain" in kinds(bridge.findings_of(*pair(FORGETS, REPEATS)))


# ── topics that the broker refuses ─────────────────────────────────────────────────────────────


def silent(*ids: str) -> ConnectedBridge:
    """The changes of these terminals are never told."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"), terminal("b"), terminal("ab"))
    before, lines = copy.deepcopy(bridge.retained), len(bridge.lines)
    bridge.terminals(terminal("a", name="x"), terminal("b", name="x"), terminal("ab", name="x"))
    topics = tuple(f"oneweb/terminal/{id}/" for id in ids)
    bridge.lines[lines:] = [line for line in bridge.lines[lines:] if not line.topic.startswith(topics)]
    bridge.retained |= {topic: record for topic, record in before.items() if topic.startswith(topics)}
    return bridge


def test_refused_topics_excuse_themselves_and_no_others() -> None:
    """A record too large excuses its own topics: neither another record's, nor one whose id begins alike."""
    assert silent("a").findings_of(*pair(TOO_LARGE, FORGETS)) == []
    assert "lost event" in kinds(silent("a").findings_of(*pair(FORGETS)))
    assert "lost event" in kinds(silent("b").findings_of(*pair(TOO_LARGE, FORGETS)))
    assert "lost event" in kinds(silent("ab").findings_of(*pair(TOO_LARGE, FORGETS)))


def test_device_that_outgrew_the_broker_is_excused_where_the_broker_forgets() -> None:
    """What the log says of topics below the discovery prefix excuses these alone."""
    topic = "homeassistant/device/oneweb_main_product_1/config"
    log = f"error app: {topic} cannot be published: 15371 bytes are more than the 8001 that the broker allows\n" * 2
    bridge = ConnectedBridge()
    bridge.lines.append(Line(1.0, topic, b"{}", retain=True))

    assert allow_outgrown(log, [TOO_LARGE]) == []
    assert allow_outgrown(log.replace("homeassistant", "oneweb"), [FORGETS]) == []
    assert "wrong retained" in kinds(bridge.findings_of(*pair(TOO_LARGE, FORGETS)))
    assert bridge.findings_of(*pair(TOO_LARGE, FORGETS), *allow_outgrown(log, [FORGETS])) == []


# ── a filter for a while ───────────────────────────────────────────────────────────────────────


def test_filter_excuses_its_time_and_no_other() -> None:
    """What a filter hid need not be told; a change after it must be."""
    bridge = silent("a")
    since = bridge.ledger[-1]["wall"]
    filtered = Allowance(fault="filter changed", unsure=((since - 1, since + 1),))
    elsewhere = Allowance(fault="filter changed", unsure=((since + 5, since + 9),))

    assert bridge.findings_of(*pair(filtered, FORGETS)) == []
    assert "lost event" in kinds(bridge.findings_of(*pair(elsewhere, FORGETS)))


def test_answer_after_the_end_need_not_be_told_yet() -> None:
    """The state of a poll may be heard before its messages when a round ends; what came before must be told."""
    bridge = silent("a")
    since = bridge.ledger[-1]["wall"]

    assert bridge.findings_of(*pair(FORGETS), still_since=since - 1) == []
    assert "lost event" in kinds(bridge.findings_of(*pair(FORGETS), still_since=since + 1))


def test_filter_excuses_no_invention() -> None:
    """What no listing showed may not be told, in the time of a filter neither."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"))
    bridge._records([terminal("ghost")])

    assert "phantom event" in kinds(bridge.findings_of(*pair(Allowance(fault="filter changed", unsure=(EVER,)))))


def test_event_that_comes_again_under_another_name_is_allowed_by_its_fault_alone() -> None:
    """The id and all else are the same; only its source says how the bridge is called now."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"))
    bridge.terminals(terminal("a", name="x"))
    line = bridge.lines[last_of(bridge, "a/event/changed")]
    bridge.lines.append(Line(line.at, line.topic, json.dumps(json.loads(line.payload) | {"source": "/other"}).encode()))

    assert bridge.findings_of(*pair(Allowance(fault="instance changed", renames=True))) == []
    assert kinds(bridge.findings_of(*pair(FORGETS))) == {"other bytes"}


# ── a backup that is restored ──────────────────────────────────────────────────────────────────


def restored(times: int = 1) -> tuple[ConnectedBridge, Allowance]:
    """Changes before, between and after restores of one backup; each goes back to it, and catches up."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"), terminal("b"))
    bridge.signals(measured("a", ("2025-06-17T10:00:00Z", 1.0)))
    backup = bridge.back_up()
    bridge.terminals(terminal("a", name="x"), terminal("b"))
    at = []
    for number in range(times):
        at.append(bridge.restore(backup, f"k{number}"))
        bridge.terminals(terminal("a", name="x"), terminal("b"))
        bridge.terminals(terminal("a", name="x"), terminal("b", name=f"new {number}"))
    return bridge, Allowance(fault="backup restored", restored_at=tuple(at), repeats=True)


@pytest.mark.parametrize("times", [1, 2])
def test_restored_backup_begins_anew(times: int) -> None:
    """States go back and events come again under other ids: only a restore excuses that, each for itself."""
    bridge, allowance = restored(times)

    assert bridge.findings_of(*pair(allowance, FORGETS)) == []
    assert bridge.findings_of(*pair(FORGETS, REPEATS)) != []


def last_of(bridge: ConnectedBridge, topic: str) -> int:
    """Where the last message of a topic is."""
    return max(at for at, line in enumerate(bridge.lines) if line.topic.endswith(topic))


@pytest.mark.parametrize("lost", ["", "a/state", "a/components"])
@pytest.mark.parametrize("is_told_again", [False, True])
def test_events_around_a_restore_need_no_retained_topics(lost: str, *, is_told_again: bool) -> None:
    """The bridge is ended between an event and its retained topic; and the first event after it changes what was."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"))
    bridge.components(parts("a", "1"))
    backup, parts_then = bridge.back_up(), copy.deepcopy(bridge._parts)
    bridge.terminals(terminal("a", name="x"))
    bridge.components(parts("a", "2"))
    if lost:
        del bridge.lines[last_of(bridge, lost)]
    allowance = Allowance(fault="backup restored", restored_at=(bridge.restore(backup, "k0"),), repeats=True)
    bridge._parts = parts_then
    if not is_told_again:
        del bridge.lines[last_of(bridge, "a/components")]
    bridge.terminals(terminal("a", name="x"))
    bridge.components(parts("a", "2"))
    bridge.components(parts("a", "3"))
    assert bridge.findings_of(*pair(allowance, FORGETS)) == []

    del bridge.lines[last_of(bridge, "a/components")]
    assert bridge.findings_of(*pair(allowance, FORGETS)) != []


def test_second_restore_is_not_excused_by_the_first() -> None:
    """A database that goes back once more than it was restored is found."""
    bridge, allowance = restored(2)
    once = Allowance(fault="backup restored", restored_at=allowance.restored_at[:1], repeats=True)

    assert bridge.findings_of(*pair(once)) != []


def test_lost_event_after_a_restore_is_found() -> None:
    """What is shown after the restore must be told."""
    bridge, allowance = restored()
    places = [at for at, line in enumerate(bridge.lines) if line.topic.startswith("oneweb/terminal/b/")][-2:]
    for at in reversed(places):
        del bridge.lines[at]

    assert "lost event" in kinds(bridge.findings_of(*pair(allowance, FORGETS)))


def test_invention_and_disorder_beside_a_restore_are_found() -> None:
    """Before and after a restore nothing is invented, and the order of each journal holds."""
    bridge, allowance = restored()
    changed = [at for at, line in enumerate(bridge.lines) if line.topic.endswith("/event/changed")]
    line = bridge.lines[changed[0]]
    other = json.loads(line.payload)
    other["data"]["record"]["name"] = "?"
    bridge.lines[changed[0]] = Line(line.at, line.topic, json.dumps(other).encode())
    assert "phantom event" in kinds(bridge.findings_of(*pair(allowance, FORGETS)))

    bridge, allowance = restored()
    bridge.terminals(terminal("a", name="y"), terminal("b", name="new 0"))
    event = next(line for line in bridge.lines if line.payload.startswith(b'{"id": "k0:'))
    bridge.lines.append(Line(bridge.lines[-1].at, event.topic, event.payload))
    assert "step back" in kinds(bridge.findings_of(*pair(allowance, FORGETS)))


def test_id_that_was_given_twice_is_found_over_a_restore() -> None:
    """A database that goes back may give no event the id of another one."""
    bridge, allowance = restored()
    event = next(at for at, line in enumerate(bridge.lines) if line.payload.startswith(b'{"id": "k0:'))
    line = bridge.lines[event]
    former = next(json.loads(line.payload)["id"] for line in bridge.lines if b'"id": "j:' in line.payload)
    content = json.dumps(json.loads(line.payload) | {"id": former}).encode()
    bridge.lines[event] = Line(line.at, line.topic, content)

    assert "other bytes" in kinds(bridge.findings_of(*pair(allowance, FORGETS)))


# ── another base topic ─────────────────────────────────────────────────────────────────────────


def moved() -> ConnectedBridge:
    """A terminal changes while the bridge is below another base, and another one is removed there."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"), terminal("b"))
    bridge.move(OTHER_BASE)
    bridge.terminals(terminal("a", name="x"), terminal("b"))
    bridge.terminals(terminal("a", name="x"))
    bridge.remove("b")
    bridge.move(BASE)
    bridge.terminals(terminal("a", name="y"))
    return bridge


EARLY = Allowance(fault="records removed", removal=(1, 0.0, 5))


def test_what_is_published_below_another_base_counts() -> None:
    """Messages below either base are one story, and a base that is left is cleared without a removal."""
    assert moved().findings_of(*pair(EARLY)) == []


def test_loss_and_leftovers_below_another_base_are_found() -> None:
    """A change that was not told there, a record that was cleared without a removal, and what is left there."""
    bridge = moved()
    bridge.lines = [line for line in bridge.lines if line.topic != f"{OTHER_BASE}/terminal/a/event/changed"]
    assert bridge.findings_of(*pair(EARLY)) != []

    bridge = moved()
    bridge.lines = [line for line in bridge.lines if not line.topic.endswith("/event/removed")]
    assert bridge.findings_of(*pair(EARLY)) != []

    bridge = moved()
    bridge.retained[f"{OTHER_BASE}/terminal/a/state"] = {"imei": "a"}
    assert "wrong retained" in kinds(bridge.findings_of(*pair(EARLY)))


# ── topics that wait ───────────────────────────────────────────────────────────────────────────

OVERTAKES = Allowance(fault="class refused", overtakes=True)


def overtaken(topic: str, by: str) -> ConnectedBridge:
    """An event of a terminal comes after a later one."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"), terminal("b"))
    bridge.terminals(terminal("a", name="x"), terminal("b"))
    bridge.terminals(terminal("a", name="y"), terminal("b"))
    first = next(at for at, line in enumerate(bridge.lines) if line.topic == f"oneweb/terminal/a/event/{topic}")
    line = bridge.lines.pop(first)
    last = max(at for at, line in enumerate(bridge.lines) if line.topic == f"oneweb/terminal/a/event/{by}")
    bridge.lines.insert(last + 1, line)
    return bridge


def test_event_of_another_topic_may_be_overtaken_where_topics_wait() -> None:
    """The first change may come before the record was added; only a fault that makes topics wait excuses that."""
    assert overtaken("added", by="changed").findings_of(*pair(OVERTAKES, FORGETS)) == []
    assert "broken order" in kinds(overtaken("added", by="changed").findings_of(*pair(FORGETS, REPEATS)))


def test_event_of_the_same_topic_is_never_overtaken() -> None:
    """Within a topic the order of the rows holds, and nothing may be missing of what was overtaken."""
    assert "broken order" in kinds(overtaken("changed", by="changed").findings_of(*pair(OVERTAKES, FORGETS)))
    bridge = overtaken("added", by="changed")
    bridge.lines = [line for line in bridge.lines if not line.topic.endswith("a/event/added")]
    assert bridge.findings_of(*pair(OVERTAKES, FORGETS)) != []


# ── removals and repeats ───────────────────────────────────────────────────────────────────────


def test_early_removal_is_allowed_by_its_fault_alone() -> None:
    """Removals after one listing belong to the faults that configure them."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"), terminal("b"))
    bridge.terminals(terminal("a"))
    bridge.remove("b")

    assert bridge.findings_of(*pair(Allowance(fault="records removed", removal=(1, 0.0, 5)), FORGETS)) == []
    assert "phantom event" in kinds(bridge.findings_of(*pair(FORGETS, REPEATS)))


@pytest.mark.parametrize(("leaving", "are_held"), [("defgh", False), ("cdefgh", True)])
def test_removal_of_many_at_once_is_found(leaving: str, *, are_held: bool) -> None:
    """Where more than may go at once are missing, none may be removed, whatever its fault sets besides."""
    bridge = ConnectedBridge()
    bridge.terminals(*map(terminal, "abcdefgh"))
    bridge.terminals(*(terminal(id) for id in "abcdefgh" if id not in leaving))
    for id in leaving:
        bridge.remove(id)

    findings = kinds(bridge.findings_of(*pair(Allowance(fault="mass removal", removal=(1, 0.0, 5)), FORGETS)))
    assert ("phantom event" in findings) == are_held


def test_removal_is_allowed_once_those_that_were_held_are_back() -> None:
    """Two that stay away go when the others have come back: then they are few."""
    bridge = ConnectedBridge()
    bridge.terminals(*map(terminal, "abcdefgh"))
    bridge.terminals(*map(terminal, "ab"))
    bridge.terminals(*map(terminal, "abcdef"))
    for id in "gh":
        bridge.remove(id)

    assert bridge.findings_of(*pair(Allowance(fault="mass removal", removal=(1, 0.0, 5)))) == []


def test_repeats_are_counted_unless_a_fault_makes_them() -> None:
    """More repeats than fit into a window are found."""
    bridge = ConnectedBridge()
    bridge.terminals(terminal("a"))
    event = next(line for line in bridge.lines if line.topic.endswith("/event/added"))
    at = bridge.lines.index(event)
    bridge.lines[at:at] = [event] * 3

    assert "too many repeats" in bridge.findings_of(*pair(FORGETS))[0]
    assert bridge.findings_of(*pair(REPEATS)) == []


def test_allowance_of_no_fault_is_none() -> None:
    """A fault by itself allows nothing."""
    assert judge(Evidence(lines=(), taken=(), ledger=(), retained={}), [Allowance(fault="link cut")])[1] == []
    assert "lost event" in kinds(
        silent("a").findings_of(*pair(Allowance(fault="link cut"), Allowance(fault="disk full")))
    )
