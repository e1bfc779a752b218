"""The checker itself: a true story is found true, and each planted fault is found and called by its name."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests import checker, truth, truth_usage

BEGAN = 1_750_000_000.0
TERMINALS = "/resourceInventory/v3/userTerminal"
SIGNALS = "/performanceMonitoring/v2/userTerminal/signalQuality"
Messages = list[tuple[str, bytes, bool]]
Json = dict[str, Any]


def stamp(at: float) -> str:
    """A time as the bridge writes it."""
    return truth_time(at, ".000Z")


def truth_time(at: float, end: str) -> str:
    """A time of the story, whole seconds."""
    seconds = round(at) % 86_400
    return f"2025-06-17T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{end}"


def wall(at: float) -> float:
    """The same time in seconds since the epoch."""
    return checker._seconds(stamp(at))


def terminal(id: str, **changes: Any) -> Json:
    """A terminal as the API shows it."""
    return {"id": id, "resourceState": "online", "name": f"Terminal {id}", "lastSeenDate": "2025-06-17T14:00:00Z"} | {
        name: value for name, value in changes.items() if value is not None
    }


def parts(id: str, version: str) -> Json:
    """The components of a terminal as the API shows them."""
    return {"id": id, "component": [{"partition": "main", "type": "SSM", "version": version}]}


def measured(id: str, *samples: tuple[str, float]) -> Json:
    """A signal quality report of one terminal."""
    indicators = [{"timestamp": t, "performanceIndicator": [{"name": "sinr", "value": v}]} for t, v in samples]
    return {"id": id, "measurement": indicators}


class Bridge:
    """A bridge that does as it should: it polls the listings that it is given, and says what must be said."""

    def __init__(self) -> None:
        self.ledger: list[Json] = []
        self.received: Messages = []
        self.retained: Json = {}
        self._now = 50_000.0
        self._row = 0
        self._known: Json = {}
        self._parts: Json = {}
        self._newest: dict[str, str] = {}
        self._seen: set[tuple[str, str, float]] = set()

    def say(self, topic: str, body: Any, *, retain: bool = False) -> None:
        """One message, heard once."""
        self.received.append((topic, b"" if body is None else json.dumps(body).encode(), retain))
        if retain and not topic.startswith("oneweb/bridge/"):
            self.retained.pop(topic, None) if body is None else self.retained.__setitem__(topic, body)

    def event(self, id: str, kind: str, data: Json) -> None:
        """An event with the next row's id."""
        self._row += 1
        event = {"id": f"j:{self._row}", "type": f"net.oneweb.terminal.{kind}", "time": stamp(self._now), "data": data}
        self.say(f"oneweb/terminal/{id}/event/{kind}", event)

    def show(self, path: str, items: list[Json], fields: str = "", pages: int = 1) -> None:
        """A listing in pages, as the ledger has it."""
        size = max(1, len(items) // pages)
        for at in range(0, max(1, len(items)), size):
            self._now += 1
            query = {"offset": str(at), "limit": str(size)} | ({"fields": fields} if fields else {})
            line = {"path": path, "query": query, "offset": at, "total": len(items), "complete_body": True}
            self.ledger.append(line | {"wall": wall(self._now), "items": copy.deepcopy(items[at : at + size])})

    def poll(self, call: str, path: str, items: list[Json], fields: str = "", *, accepted: bool = True) -> None:
        """A whole poll: what is shown, and then the state of the call, unless the bridge was killed before."""
        begun = self._now
        self.show(path, items, fields)
        if accepted:
            {"user_terminals": self._records, "user_terminal_components": self._components}.get(call, self._samples)(
                items
            )
            state = {"call": call, "last_poll": stamp(begun), "last_success": stamp(self._now + 1)}
            self.say(f"oneweb/bridge/polling/{call}/state", state, retain=True)
        self._now += 10

    def terminals(self, *items: Json, accepted: bool = True) -> None:
        """A poll of the inventory."""
        self.poll("user_terminals", TERMINALS, list(items), accepted=accepted)

    def components(self, *items: Json, are_kept_aside: bool = False) -> None:
        """A poll of the components; nothing is published of those that are kept aside."""
        begun = self._now
        self.poll("user_terminal_components", TERMINALS, list(items), "id,component", accepted=not are_kept_aside)
        if are_kept_aside:
            self.say_succeeded("user_terminal_components", begun)

    def say_succeeded(self, call: str, begun: float) -> None:
        """The state of a call whose poll has succeeded."""
        state = {"call": call, "last_poll": stamp(begun), "last_success": stamp(self._now)}
        self.say(f"oneweb/bridge/polling/{call}/state", state, retain=True)

    def signals(self, *items: Json, are_kept_aside: bool = False) -> None:
        """A poll of a report; nothing is published of samples that are kept aside."""
        begun = self._now
        self.poll("ut_signal_quality", SIGNALS, list(items), accepted=not are_kept_aside)
        if are_kept_aside:
            self.say_succeeded("ut_signal_quality", begun)

    def usage(self, used: float, *, is_published: bool = True) -> None:
        """A poll of the usage of one bucket."""
        begun = self._now
        counter = {"counterType": "usage", "level": "global", "value": {"amount": used}}
        left = {"remainingValueName": "x", "remainingValue": {"amount": 9.0}}
        bucket = {"id": "u", "product": [{"id": "p"}], "bucketBalance": [left], "bucketCounter": [counter]}
        self.show(truth_usage.PATH, [{"id": "r", "bucket": [bucket]}])
        values = {
            "bucket_id": "u",
            "product_id": "p",
            "used_gb": used,
            "remaining_gb": 9.0,
            "remaining_unlimited": False,
        }
        if is_published:
            at = {"time": stamp(self._now), "ts": round(self._now * 1000)}
            self.say("oneweb/product/p/usage/u", values | at, retain=True)
        state = {"call": "usage_consumption", "last_poll": stamp(begun), "last_success": stamp(self._now + 1)}
        self.say("oneweb/bridge/polling/usage_consumption/state", state, retain=True)
        self._now += 10

    def _records(self, items: list[Json]) -> None:
        for item in items:
            before, after = self._known.get(item["id"]), truth.terminal(item)
            if before is None:
                self.event(item["id"], "added", {"record": after, "initial": False})
            else:
                changed = {
                    n: {"from": before.get(n), "to": after.get(n)}
                    for n in before.keys() | after.keys()
                    if n not in truth.VOLATILE and before.get(n) != after.get(n)
                }
                if not changed:
                    continue
                self.event(item["id"], "changed", {"changed": changed, "record": after})
            self._known[item["id"]] = after
            self.say(f"oneweb/terminal/{item['id']}/state", after, retain=True)

    def remove(self, id: str) -> None:
        """The end of a record."""
        self.event(id, "removed", {"record": self._known.pop(id)})
        for topic in [topic for topic in self.retained if topic.startswith(f"oneweb/terminal/{id}/")]:
            self.say(topic, None, retain=True)

    def _components(self, items: list[Json]) -> None:
        for item in items:
            before, after = self._parts.get(item["id"]), truth.components(item)
            if before == after or after is None:
                continue
            if before is not None:
                changed = checker._parts_changed(before, after)
                self.event(item["id"], "changed", {"changed": changed, "record": self._known[item["id"]]})
            self._parts[item["id"]] = after
            self.say(f"oneweb/terminal/{item['id']}/components", after, retain=True)

    def _samples(self, items: list[Json]) -> None:
        for item in items:
            fresh = [(m["timestamp"], m["performanceIndicator"][0]["value"]) for m in item.get("measurement", ())]
            fresh = [(t, v) for t, v in fresh if (item["id"], t, v) not in self._seen]
            for at, value in fresh:
                self._sample(item["id"], at, value, newest=at == max(t for t, _ in fresh))

    def _sample(self, id: str, at: str, value: float, *, newest: bool) -> None:
        corrected = any((id, at) == (i, t) for i, t, _ in self._seen)
        self._seen.add((id, at, value))
        body = {"imei": id, "report": "signal_quality", "time": at, "ts": round(checker._seconds(at) * 1000)}
        body |= {"sinr_db": float(value)} | ({"corrected": True} if corrected else {})
        newest = newest and at >= self._newest.get(id, "")
        if corrected or not newest:
            self.say(f"oneweb/terminal/{id}/history/signal_quality", body)
        if newest:
            self._newest[id] = at
            self.say(f"oneweb/terminal/{id}/metric/signal_quality", body, retain=True)


PRODUCTS = "/api/webservices/productinventory/v2/product"
T1, T2, T3, T4 = (f"2025-06-17T10:0{n}:00Z" for n in range(4))


def story() -> Bridge:
    """Two terminals that change, firmware that changes, samples that are late and corrected, one removal."""
    bridge = Bridge()
    bridge.terminals(terminal("a"), terminal("b"), terminal("c"))
    bridge.components(parts("a", "1"), parts("b", "1"))
    bridge.signals(measured("a", (T1, 1.0)), measured("b", (T1, 1.0), (T2, 2.0)))
    bridge.terminals(terminal("a", resourceState="offline"), terminal("b"), terminal("c"))
    bridge.components(parts("a", "2"), parts("b", "1"))
    bridge.signals(measured("a", (T2, 2.0), (T3, 3.0)), measured("b", (T2, 2.5), (T3, 3.0)))
    bridge.terminals(terminal("a"), terminal("b", name="new"), terminal("c"))
    bridge.terminals(terminal("a"), terminal("b", name="unsure"), terminal("c"), accepted=False)
    bridge.terminals(terminal("a"), terminal("b", name="newer"))
    bridge.signals(measured("a", (T4, 4.0)), measured("b", (T1, 1.0), (T4, 4.0)))
    for _ in range(2):
        bridge._now += 500
        bridge.terminals(terminal("a"), terminal("b", name="newer"))
    bridge.remove("c")
    bridge.terminals(terminal("a"), terminal("b", name="newer"))
    bridge.usage(1.0)
    bridge.usage(2.0)
    return bridge


def findings_of(bridge: Bridge, **changes: Any) -> list[str]:
    """What the checker says of a story."""
    retained = changes.pop("retained", bridge.retained)
    return checker.judge(checker.Story(ledger=bridge.ledger, received=bridge.received, retained=retained, **changes))


def at(bridge: Bridge, topic: str, number: int = 0) -> int:
    """Where the n-th message of a topic is."""
    whole = topic if topic.startswith("oneweb/") else f"oneweb/terminal/{topic}"
    return [place for place, (name, _, _) in enumerate(bridge.received) if name == whole][number]


def rewritten(bridge: Bridge, topic: str, number: int, change: Callable[[Json], None]) -> None:
    """Changes what one message says."""
    place = at(bridge, topic, number)
    name, payload, retain = bridge.received[place]
    body = json.loads(payload)
    change(body)
    bridge.received[place] = (name, json.dumps(body).encode(), retain)


def repeated(bridge: Bridge, topic: str, number: int, *, after: str | None = None) -> None:
    """Sends a message once more, at the end or right after the last of another topic."""
    message = bridge.received[at(bridge, topic, number)]
    bridge.received.insert(len(bridge.received) if after is None else at(bridge, after, -1) + 1, message)


def test_true_story_is_found_true() -> None:
    """A bridge that does as it should is not accused."""
    assert findings_of(story()) == []


def test_exact_repeat_is_no_fault() -> None:
    """1, 1, 2 may come: each message that is the last of its topic may be heard again."""
    bridge = story()
    bridge.received = [message for sent in bridge.received for message in (sent, sent)]

    assert findings_of(bridge) == []


def test_replayed_messages_are_no_fault() -> None:
    """What is marked as replayed is outside of every order."""
    bridge = story()
    _, payload, _ = bridge.received[at(bridge, "a/event/added")]
    bridge.received.append(("oneweb/terminal/a/event/added", payload[:-1] + b', "replayed": true}', False))

    assert findings_of(bridge) == []


def test_listing_of_a_killed_bridge_may_be_told_or_not() -> None:
    """What a bridge read that was killed at once may be announced as well as not."""
    silent, telling = Bridge(), Bridge()
    for bridge in (silent, telling):
        bridge.terminals(terminal("a"))
        bridge.terminals(terminal("a", name="x"), accepted=False)
    telling._records([terminal("a", name="x")])
    for bridge in (silent, telling):
        bridge.terminals(terminal("a"))

    assert findings_of(silent) == findings_of(telling) == []


def test_recorder_that_came_late_is_no_fault() -> None:
    """With `whole` false, what was said before the recorder came is not missed."""
    bridge = story()
    place = at(bridge, "a/event/changed", 1)
    known: Json = {}
    for topic, payload, retain in bridge.received[:place]:
        if retain:
            known[topic] = (topic, payload, True)
    bridge.received = [*known.values(), *bridge.received[place:]]

    assert findings_of(bridge, whole=False) == []


def test_pages_make_a_listing_only_when_they_fit() -> None:
    """A listing in pages counts; one with a page missing, twice, cut, or with another total does not."""
    for spoil in ("", "missing", "twice", "cut", "total"):
        bridge = Bridge()
        bridge.show(TERMINALS, [terminal(name) for name in "abcd"], pages=4)
        if spoil == "missing":
            del bridge.ledger[2]
        elif spoil == "twice":
            bridge.ledger.insert(1, copy.deepcopy(bridge.ledger[1]))
        elif spoil == "cut":
            bridge.ledger[3]["complete_body"] = False
        elif spoil == "total":
            bridge.ledger[2]["total"] = 5

        assert len(checker.listings(bridge.ledger)) == (not spoil), spoil


def test_record_beside_items_without_id_may_be_told() -> None:
    """Of a listing in which an id is missing the others are announced, also what no other listing shows."""
    for is_shown in (True, False):
        bridge = Bridge()
        bridge.terminals(terminal("a"), terminal("b"))
        shown = [terminal("a", name="x"), {"name": "without an id"}] if is_shown else [terminal("a"), terminal("b")]
        bridge.show(TERMINALS, shown)
        bridge._records([terminal("a", name="x")])
        bridge.terminals(terminal("a", name="y"), terminal("b"))

        assert (findings_of(bridge) == []) is is_shown


def test_sample_beside_items_without_id_is_no_invention() -> None:
    """Of a listing in which ids are missing, the samples of the others are told; if not, they are missed."""
    for is_told in (True, False):
        bridge = Bridge()
        bridge.terminals(terminal("a"), terminal("b"), terminal("c"))
        nameless = [{"measurement": measured(id, (T1, 1.0))["measurement"]} for id in ("b", "c")]
        bridge.poll("ut_signal_quality", SIGNALS, [measured("a", (T1, 1.0)), *nameless], accepted=False)
        begun = checker._seconds("2025-06-17T00:00:00Z")
        if is_told:
            bridge._samples([measured("a", (T1, 1.0))])
        times = [line["wall"] - begun for line in bridge.ledger[-1:]]
        state = {"call": "ut_signal_quality", "last_poll": stamp(times[0]), "last_success": stamp(times[0])}
        bridge.say("oneweb/bridge/polling/ut_signal_quality/state", state, retain=True)

        assert [line.split(":")[0] for line in findings_of(bridge)] == ([] if is_told else ["sample missing"])


Plant = Callable[[Bridge], None]


def lose(topic: str, number: int = 0) -> Plant:
    """Takes a message away."""

    def plant(bridge: Bridge) -> None:
        bridge.received.pop(at(bridge, topic, number))

    return plant


def change(topic: str, number: int, edit: Callable[[Json], None]) -> Plant:
    """Edits a message."""
    return lambda bridge: rewritten(bridge, topic, number, edit)


def repeat_late(topic: str, number: int = 0, after: str | None = None) -> Plant:
    """Repeats a message too late."""
    return lambda bridge: repeated(bridge, topic, number, after=after)


def both(*plants: Plant) -> Plant:
    """Several at once."""

    def plant(bridge: Bridge) -> None:
        for plant in plants:
            plant(bridge)

    return plant


def swap(left: str, right: str) -> Plant:
    """Exchanges two messages, given as topic and number."""

    def plant(bridge: Bridge) -> None:
        first, second = (at(bridge, *_place(text)) for text in (left, right))
        bridge.received[first], bridge.received[second] = bridge.received[second], bridge.received[first]

    return plant


def _place(text: str) -> tuple[str, int]:
    topic, _, number = text.partition(" ")
    return topic, int(number or 0)


def moved_to_history(bridge: Bridge) -> None:
    """A newest sample is said on both topics."""
    place = at(bridge, "a/metric/signal_quality", 1)
    bridge.received.insert(place, ("oneweb/terminal/a/history/signal_quality", bridge.received[place][1], False))


def another_id(bridge: Bridge) -> None:
    """An event comes once more under another id."""
    repeated(bridge, "b/event/changed", -1)
    body = json.loads(bridge.received[-1][1])
    bridge.received[-1] = (bridge.received[-1][0], json.dumps(body | {"id": "j:99"}).encode(), False)


def other_content(bridge: Bridge) -> None:
    """An event comes once more with another content."""
    repeated(bridge, "b/event/changed", -1)
    rewritten(bridge, "b/event/changed", -1, lambda event: event["data"].update(initial=True))


def invented(bridge: Bridge) -> None:
    """An event and a state of a terminal that nobody has."""
    bridge._records([terminal("ghost")])


def early(bridge: Bridge) -> None:
    """A terminal is removed though it was missed once only."""
    bridge.terminals(terminal("a"))
    bridge.remove("b")


def set_value(*path: str, to: Any) -> Callable[[Json], None]:
    """An edit that sets one member."""

    def edit(body: Json) -> None:
        for name in path[:-1]:
            body = body[name]
        body[path[-1]] = to

    return edit


def event_of_components(bridge: Bridge) -> None:
    """The event that stands before a change of components is lost."""
    bridge.received.pop(at(bridge, "a/components", 1) - 1)


def retained_gone(bridge: Bridge) -> None:
    """A new subscriber is not given what was said."""
    bridge.retained.pop("oneweb/terminal/a/components")


USAGE = "oneweb/product/p/usage/u"
NEWER = ("data", "record", "name")
CHANGED = ("data", "changed")
SSM = "components.main/SSM"
SIGNAL = "a/metric/signal_quality"
STATE = {f"oneweb/terminal/{id}/state": {"imei": id} for id in "abc"}
LATE = "b/history/signal_quality"
PLANTS: list[tuple[str, str, Plant]] = [
    ("an added is lost", "lost event", both(lose("a/event/added"), lose("a/state"))),
    ("a last change is lost", "lost event", both(lose("b/event/changed", -1), lose("b/state", -2))),
    ("a removal is lost", "lost event", both(lose("c/event/removed"), lose("c/state", -1))),
    ("two changes in between are lost", "lost event", both(*[lose("a/event/changed")] * 2, *[lose("a/state", 1)] * 2)),
    ("an event of components is lost", "lost event", event_of_components),
    ("components are never told", "lost event", lose("b/components")),
    ("a terminal is invented", "phantom event", invented),
    ("a value is invented", "phantom event", change("b/event/changed", -1, set_value(*NEWER, to="?"))),
    ("a removal is too early", "phantom event", early),
    ("components are invented", "phantom event", change("b/components", 0, set_value("components", to={"x": "1"}))),
    (
        "`from` is not the `to` before",
        "broken chain",
        change("b/event/changed", 0, set_value(*CHANGED, "name", "from", to="?")),
    ),
    (
        "`to` is not in the record",
        "broken chain",
        change("b/event/changed", 0, set_value(*CHANGED, "name", "to", to="?")),
    ),
    (
        "a field changes untold",
        "broken chain",
        change("b/event/changed", 0, set_value("data", "record", "imsi", to="1")),
    ),
    (
        "components change from what was not",
        "broken chain",
        change("a/event/changed", 1, set_value(*CHANGED, SSM, "from", to="0")),
    ),
    ("a middle event is lost", "broken chain", both(lose("b/event/changed", 0), lose("b/state", 1))),
    ("two events are exchanged", "broken order", swap("a/event/changed 0", "a/event/changed 1")),
    ("an old event comes again", "step back", repeat_late("a/event/changed")),
    ("an old state comes again", "step back", repeat_late("b/state")),
    ("an old sample comes again", "step back", repeat_late(SIGNAL)),
    ("an older sample follows a newer one", "step back", swap(f"{SIGNAL} 1", f"{SIGNAL} 2")),
    ("an event has another id", "other id", another_id),
    ("an event has other bytes", "other bytes", other_content),
    (
        "a sample has other bytes",
        "other bytes",
        both(repeat_late(SIGNAL, -1), change(SIGNAL, -1, set_value("sinr_db", to=9.0))),
    ),
    ("a state says something else", "wrong state", change("b/state", 1, set_value("name", to="?"))),
    ("a state is not said", "wrong state", lose("a/state", 1)),
    (
        "a state comes without an event",
        "wrong state",
        lambda b: b.say("oneweb/terminal/a/state", {"imei": "a"}, retain=True),
    ),
    ("a newest sample is lost", "sample missing", lose(SIGNAL, 1)),
    ("a late sample is lost", "sample missing", lose(LATE)),
    ("a correction is lost", "sample missing", both(lose(LATE, 1))),
    ("a sample has a wrong value", "sample missing", change(LATE, 0, set_value("sinr_db", to=9.5))),
    ("a sample is on both topics", "sample twice", moved_to_history),
    ("a late sample comes again", "sample twice", repeat_late(LATE)),
    ("a sample is invented", "phantom sample", change(LATE, 0, set_value("sinr_db", to=9.5))),
    ("usage is lost", "sample missing", lose(USAGE, 0)),
    ("usage is invented", "phantom sample", change(USAGE, 1, set_value("used_gb", to=3.0))),
    ("usage goes back", "step back", swap(f"{USAGE} 0", f"{USAGE} 1")),
    ("a retained topic is old", "wrong retained", lambda b: b.retained.update(STATE)),
    ("a retained topic is gone", "wrong retained", retained_gone),
    ("a cleared topic is still there", "wrong retained", lambda b: b.retained.update(STATE)),
]


def samples_missing(bridge: Bridge) -> int:
    """How many samples the checker misses."""
    return sum(line.startswith("sample missing: ") for line in findings_of(bridge))


@pytest.mark.parametrize(("listed", "expected"), [([{"id": "p"}], 1), ([{"id": "q"}], 0)])
def test_usage_must_come_once_its_own_product_is_listed(listed: list[Json], expected: int) -> None:
    """Products that were listed before do not make one known that is new."""
    bridge = Bridge()
    bridge.poll("products", PRODUCTS, listed)
    bridge.usage(1.0, is_published=False)
    bridge.poll("products", PRODUCTS, [{"id": "p"}])
    assert samples_missing(bridge) == expected


def test_usage_of_a_product_that_a_listing_lacks_must_come() -> None:
    """What was listed once stays known."""
    bridge = Bridge()
    for listed in ([{"id": "p"}], [{"id": "q"}]):
        bridge.poll("products", PRODUCTS, listed)
    bridge.usage(1.0, is_published=False)
    assert samples_missing(bridge) == 1


def test_reports_of_usage_need_no_id() -> None:
    """What they tell of are buckets, whose ids are in them."""
    bridge = Bridge()
    bridge.usage(1.0)
    (report,) = bridge.ledger[-1]["items"]
    del report["id"]
    bridge.ledger[-1].update(items=[report, report], total=2)
    assert findings_of(bridge) == []


@pytest.mark.parametrize("is_known", [False, True])
def test_usage_of_products_that_are_not_known_yet_may_be_passed_over(*, is_known: bool) -> None:
    """It is kept aside until the products are listed, and a newer value may come first; from then on all is told."""
    bridge = Bridge()
    if is_known:
        bridge.poll("products", PRODUCTS, [{"id": "p"}])
    bridge.usage(1.0, is_published=False)
    bridge.poll("products", PRODUCTS, [{"id": "p"}])
    assert samples_missing(bridge) == is_known


@pytest.mark.parametrize("is_known", [False, True])
def test_sample_that_is_corrected_before_its_terminal_is_listed_may_be_passed_over(*, is_known: bool) -> None:
    """Of what is kept aside the last value of each time comes."""
    bridge = Bridge()
    bridge.terminals(terminal("a"), accepted=is_known)
    bridge.signals(measured("a", (T1, 1.0)), are_kept_aside=True)
    if not is_known:
        bridge.terminals(terminal("a"))
    bridge.signals(measured("a", (T1, 2.0)))
    assert samples_missing(bridge) == is_known
    bridge.received = [line for line in bridge.received if line[0].count("/signal_quality") == 0]
    assert samples_missing(bridge) == 1 + is_known


def test_id_that_is_a_number_is_that_of_its_text() -> None:
    """An API that shows its ids as numbers for a while shows the same records."""
    bridge = Bridge()
    bridge.terminals(terminal("1"))
    bridge.components(parts("1", "1"))
    for line in bridge.ledger:
        line["items"] = [item | {"id": int(item["id"])} for item in line["items"]]
    assert findings_of(bridge) == []


@pytest.mark.parametrize("is_known", [False, True])
def test_components_of_a_terminal_that_is_not_listed_yet_may_be_passed_over(*, is_known: bool) -> None:
    """They are kept aside until it is listed, and newer ones may come first; from then on all is told."""
    bridge = Bridge()
    bridge.terminals(terminal("a"), accepted=is_known)
    bridge.components(parts("a", "1"), are_kept_aside=True)
    bridge.components(parts("a", "2"))
    if not is_known:
        bridge.terminals(terminal("a"))
    bridge.components(parts("a", "3"))
    assert [line.partition(":")[0] for line in findings_of(bridge)] == ["lost event"] * is_known


@pytest.mark.parametrize(("name", "kind", "plant"), PLANTS, ids=[name for name, _, _ in PLANTS])
def test_planted_fault_is_named(name: str, kind: str, plant: Plant) -> None:
    """Each fault that is planted into a true story is found, under its name."""
    bridge = story()
    plant(bridge)
    findings = findings_of(bridge)

    assert [line for line in findings if line.startswith(f"{kind}: ")], f"{name}: {findings}"


def test_every_kind_of_fault_was_planted() -> None:
    """No kind that the checker knows is left untried, and it says no other."""
    assert {kind for _, kind, _ in PLANTS} == set(checker.KINDS)
    for _, _, plant in PLANTS:
        bridge = story()
        plant(bridge)
        assert {line.split(": ")[0] for line in findings_of(bridge)} <= set(checker.KINDS)


def test_components_that_went_with_their_terminal_may_be_back_before_they_are_listed_again() -> None:
    """The clear comes with the `removed` of the terminal, between two listings of components; else it is wrong."""
    place, shown = "oneweb/terminal/a", [checker.Shown({"v": 1}, certain=True, at=at) for at in (1.0, 2.0)]
    removed = {"type": "net.oneweb.terminal.removed", "data": {}}
    tale = checker.Tale(components=[{"v": 1, "components": {}}, None, {"v": 1, "components": {}}])
    for listed in shown:
        listed.value = tale.components[0]

    assert (
        checker._judge_components(
            place, checker.Tale([removed], [], tale.components), shown, checker.Story(ledger=(), received=())
        )
        == []
    )
    assert checker._judge_components(place, tale, shown, checker.Story(ledger=(), received=())) != []
