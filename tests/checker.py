"""What the API showed against what a subscriber heard. Pure: both stories in, every broken promise out, named.

The one story is the simulator's ledger: each answered page. The other is what a recorder heard, as
(topic, payload, retain) in order. A listing counts as accepted for certain when a state of its call was
heard whose poll began before it and succeeded after it; of any other complete listing it is not known
whether the bridge was killed before it stored it, so its changes may be announced and need not be.

It shares no code with the bridge, so that the two can disagree. What it says begins with one of `KINDS`.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from tests import truth, truth_usage

KINDS = (
    "lost event",
    "phantom event",
    "broken chain",
    "broken order",
    "step back",
    "other id",
    "other bytes",
    "wrong state",
    "wrong retained",
    "sample missing",
    "sample twice",
    "phantom sample",
)

Json = dict[str, Any]
Value = Json | None
"""A record or a list of components; None is one that is not there."""
_PERFORMANCE = "/performanceMonitoring/v2/"
_REPORTS = {
    "userTerminal/linkAvailability": ("ut_link_availability", "link_availability"),
    "userTerminal/signalQuality": ("ut_signal_quality", "signal_quality"),
    "userTerminal/resourceState": ("ut_resource_state", "resource_state"),
    "userTerminal/traffic": ("ut_traffic", "traffic"),
    "userTerminal/linkMetrics": ("ut_link_metrics", "link_metrics"),
    "product/throughput": ("product_throughput", "throughput"),
}
_USAGE = "usage_consumption"
_INVENTORY = {
    "/resourceInventory/v3/userTerminal": "user_terminals",
    "/api/webservices/productinventory/v2/product": "products",
    "/partyManagement/v1/organization": "organizations",
    "/geographicSiteManagement/v1/geographicSite": "sites",
    truth_usage.PATH: _USAGE,
}
_READERS: dict[str, tuple[str, Callable[[Json], Value]]] = {
    "user_terminals": ("terminal", truth.terminal),
    "products": ("product", truth.product),
    "organizations": ("organization", truth.organization),
    "sites": ("site", truth.site),
    "user_terminal_components": ("terminal", truth.components),
}
_INDICATORS = {
    "linkAvailability": ("link_availability_pct", 1.0),
    "rsrp": ("rsrp_dbm", 1.0),
    "rssi": ("rssi_dbm", 1.0),
    "sinr": ("sinr_db", 1.0),
    "latency": ("latency_ms", 1.0),
    "jitter": ("jitter_ms", 1.0),
    "packetLoss": ("packet_loss_pct", 1.0),
    "bestEffortUplink": ("be_uplink_bps", 1e6),
    "bestEffortDownlink": ("be_downlink_bps", 1e6),
    "assuredForwardingUplink": ("af_uplink_bps", 1e6),
    "assuredForwardingDownlink": ("af_downlink_bps", 1e6),
    "expeditedForwardingUplink": ("ef_uplink_bps", 1e6),
    "expeditedForwardingDownlink": ("ef_downlink_bps", 1e6),
}
_CLOCKS = 0.02
"""Seconds by which the ledger's clock and the bridge's rounded times may differ."""
_LONGEST_POLL = 120.0
"""Seconds that a poll of a round may take."""
_NEVER_HELD = 1 << 30
"""Components go with their terminal, however many do."""
UNKNOWN: Json = {"?": "whatever was announced before the recorder came"}


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Both stories, and what is needed to compare them.

    `retained` is what a new subscriber was given at the end. `whole` says that the recorder heard everything
    from the beginning. `removal` is missed listings, seconds, and how many at once are held.
    """

    ledger: Sequence[Json]
    received: Sequence[tuple[str, bytes, bool]]
    retained: Mapping[str, Any] | None = None
    whole: bool = True
    removal: tuple[int, float, int] = (3, 900.0, 5)
    base: str = "oneweb"
    is_cut: bool = False
    """Whether an older database takes the place of this one at the end: what events say last may stand nowhere else."""
    is_renamed: bool = False
    """Whether the bridge goes by another name for a while: an event that comes again may have another source."""
    unsure: Sequence[tuple[float, float]] = ()
    """Times in which a complete listing may have been accepted and need not have been."""
    overtakes: bool = False
    """Whether events of one record may come in another order than their rows where their topics differ."""
    hold_for: float | None = None
    """Seconds after which held removals go, where a story is long enough for that: then also no removal is late."""
    heard_at: Mapping[str, float] | None = None
    """When each event was stored, by its id, where that is known: each belongs to the last listing before."""


class Shown(msgspec.Struct):
    """What a complete listing showed of one record. `missing` counts the listings in a row that lacked it.

    `all_missing` has that count of every record that the call ever showed.
    """

    value: Value
    certain: bool
    at: float
    until: float = math.inf
    """When the next listing came that tells of it."""
    missing: int = 0
    missing_for: float = 0.0
    all_missing: Sequence[int] = ()
    may_end_hold: bool = False
    """Whether many may go at once because they were held for long enough."""
    must_be_gone: bool = False
    """Whether it was removed by this listing, if not before."""
    began: float = 0.0


class Listing(msgspec.Struct):
    """A complete listing. `began` and `ended` are seconds of the wall clock."""

    call: str
    query: str
    began: float
    ended: float
    total: int | None
    items: list[Json]
    certain: bool = False


class Tale(msgspec.Struct):
    """What was heard of one record: its distinct events, and its retained topics without their exact repeats."""

    events: list[Json] = []
    states: list[Value] = []
    components: list[Value] = []


def judge(story: Story) -> list[str]:
    """Every broken promise, named; empty when the bridge told the truth, all of it, and in order."""
    wrong, tales = _read(story)
    listings_made = listings(story.ledger)
    _mark_accepted(listings_made, _polls(story), story.unsure)
    readable = listings(story.ledger, with_unreadable=True)
    _mark_accepted(readable, _polls(story), story.unsure)
    shown = {call: _shown(readable, call, story) for call in _READERS}
    entities = {entity for entity, _ in _READERS.values()}
    for place in sorted(tales.keys() | {place for places in shown.values() for place in places}):
        if place.split("/")[-2] in entities:
            wrong += _judge_record(story, place, tales.get(place, Tale()), shown)
    wrong += _judge_samples(story, readable)
    wrong += truth_usage.judge(_usage(listings_made), story.received, story.base, whole=story.whole)
    return wrong + judge_retained(story)


def _usage(listings_made: Sequence[Listing]) -> Iterable[tuple[Json, bool]]:
    """The reports of usage, each with whether it must have been published.

    What is used of a product that is not known yet is kept aside; where a newer value comes first, it is passed over.
    """
    products = _Known(listings_made, "products")
    for listing in (made for made in listings_made if made.call == _USAGE):
        for report in listing.items:
            is_known = all(products.has(id, listing.began) for id in truth_usage.products(report))
            yield report, listing.certain and is_known


class _Known:
    """Since when the listings of a call made each id known; one that is removed stays known."""

    def __init__(self, listings_made: Iterable[Listing], call: str) -> None:
        mine = sorted((made for made in listings_made if made.call == call), key=lambda made: made.ended)
        self._is_listed = bool(mine)
        self._since: dict[str, float] = {}
        for listing in mine:
            for item in listing.items if listing.certain else ():
                self._since.setdefault(_id(item), listing.ended)

    def has(self, id: str, at: float) -> bool:
        """Whether an id was known by then; where the call is never listed, all are."""
        return not self._is_listed or self._since.get(id, math.inf) <= at


# ── the ledger ─────────────────────────────────────────────────────────────────────────────────


def _call_of(line: Json) -> str:
    path = line["path"]
    if path.startswith(_PERFORMANCE):
        return _REPORTS.get(path.removeprefix(_PERFORMANCE), ("", ""))[0]
    if "component" in line["query"].get("fields", ""):
        return "user_terminal_components"
    return _INVENTORY.get(path, "")


def listings(lines: Iterable[Json], *, with_unreadable: bool = False) -> list[Listing]:
    """The complete listings of a ledger in the order in which they ended; what does not make a whole is left out.

    One with items that have no id does not tell which records are missing. But its other items count: with
    `with_unreadable` it is there, without the items that have no id. A report of usage needs none: it tells of buckets.
    """
    whole: list[Listing] = []
    begun: dict[tuple[str, str], Listing] = {}
    for line in lines:
        query = json.dumps({k: v for k, v in sorted(line["query"].items()) if k not in ("offset", "limit")})
        key = (_call_of(line), query)
        if line["offset"] == 0:
            begun[key] = Listing(*key, line["wall"], line["wall"], line["total"], [])
        listing = begun.get(key)
        if not key[0] or listing is None or not _goes_on(listing, line):
            begun.pop(key, None)
            continue
        listing.items += [_with_id_as_text(item) for item in line["items"]]
        listing.ended = line["wall"]
        if len(listing.items) == listing.total:
            whole.append(begun.pop(key))
    for listing in whole if with_unreadable else ():
        if listing.call != _USAGE:
            listing.items = [item for item in listing.items if item.get("id") is not None]
    return [listing for listing in whole if listing.call == _USAGE or _has_ids(listing)]


def _has_ids(listing: Listing) -> bool:
    """Whether each item has an id of its own."""
    return len({_id(item) for item in listing.items}) == len(listing.items)


def _with_id_as_text(item: Json) -> Json:
    """An item as the bridge reads it: an id that is a number is that text."""
    return {**item, "id": str(item["id"])} if type(item.get("id")) is int else item


def _goes_on(listing: Listing, line: Json) -> bool:
    at, total = len(listing.items), listing.total or 0
    fits = line["offset"] == at and line["total"] == listing.total and at + len(line["items"]) <= total
    return bool(line["complete_body"] and fits)


def _id(item: Json) -> str:
    return str(item.get("id"))


def _polls(story: Story) -> list[tuple[str, float, float]]:
    """The polls that are known to have succeeded: call, begin and end."""
    made = []
    for topic, payload, _ in story.received:
        if topic.startswith(f"{story.base}/bridge/polling/") and topic.endswith("/state") and payload:
            state = json.loads(payload)
            if "last_success" in state and state.get("last_poll", "~") <= state["last_success"]:
                made.append((state["call"], _seconds(state["last_poll"]), _seconds(state["last_success"])))
    return made


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _mark_accepted(
    listings_made: Sequence[Listing], polls: Iterable[tuple[str, float, float]], unsure: Sequence[tuple[float, float]]
) -> None:
    """Of several listings of one poll the last of each query is the one that was accepted."""
    by_call: dict[str, list[Listing]] = defaultdict(list)
    for listing in listings_made:
        by_call[listing.call].append(listing)
    for call, begin, end in set(polls):
        if end - begin > _LONGEST_POLL:
            continue  # the bridge's clock was set meanwhile: what it says fits no listing
        within = [
            listing for listing in by_call[call] if listing.began >= begin - _CLOCKS and listing.ended <= end + _CLOCKS
        ]
        for listing in {each.query: each for each in within}.values():
            is_unsure = any(listing.began < until and listing.ended > since for since, until in unsure)
            listing.certain = listing.certain or not is_unsure


def _shown(listings_made: Iterable[Listing], call: str, evidence: Story) -> dict[str, list[Shown]]:
    """What each record of a call looked like in each complete listing, by the beginning of its topics.

    One with items that have no id shows the others, which may be announced; of what it lacks it tells nothing.
    """
    entity, read = _READERS[call]
    mine = [listing for listing in listings_made if listing.call == call]
    keys = {_id(item) for listing in mine for item in listing.items}
    places = {key: f"{evidence.base}/{entity}/{truth.level(key)}" for key in keys}
    story: dict[str, list[Shown]] = {place: [] for place in places.values()}
    removals = _Removals(evidence.removal, evidence.hold_for)
    for listing in mine:
        by_id = {_id(item): item for item in listing.items}
        is_whole, all_missing = len(listing.items) == listing.total, list[int]()
        for key in keys if is_whole else keys & by_id.keys():
            value = read(by_id[key]) if key in by_id else None
            is_certain = listing.certain and is_whole
            shown_now = Shown(value, is_certain, listing.ended, all_missing=all_missing, began=listing.began)
            _count_missing(story[places[key]], shown_now)
            all_missing.append(shown_now.missing)
        if is_whole and call != "user_terminal_components":
            removals.follow(listing, {key: story[places[key]][-1] for key in keys})
    return story


def _count_missing(before: list[Shown], shown_now: Shown) -> None:
    if before:
        before[-1].until = shown_now.at
    if shown_now.value is None:
        last = before[-1] if before else None
        shown_now.missing = (last.missing if last else 0) + 1
        shown_now.missing_for = last.missing_for + shown_now.at - last.at if last and last.missing else 0.0
    before.append(shown_now)


class _Removals:
    """Follows from listing to listing which removals are due, held, and over. Without `hold_for` it tells nothing.

    What may be counts each complete listing, what must be only those that were accepted for certain.
    """

    def __init__(self, removal: tuple[int, float, int], hold_for: float | None) -> None:
        self._removal = removal
        self._hold_for = hold_for
        self._missing: dict[str, tuple[int, float]] = {}
        """How often a record was missing for certain, and since when."""
        self._may_hold_since = self._must_hold_since = math.inf

    def follow(self, listing: Listing, shown: Mapping[str, Shown]) -> None:
        """Notes in what a listing showed whether a hold may end, and what must be gone."""
        if self._hold_for is None:
            return
        after, seconds, most = self._removal
        most = max(most, len(shown) // 10)
        may_be_due = [s for s in shown.values() if s.missing >= after and s.missing_for >= seconds - 1]
        if len(may_be_due) > most and listing.items:
            self._may_hold_since = min(self._may_hold_since, listing.ended)
        elif listing.certain:
            self._may_hold_since = math.inf
        for record in shown.values():
            record.may_end_hold = listing.ended - self._may_hold_since >= self._hold_for - 1
        self._follow_certain(listing, shown, most)

    def _follow_certain(self, listing: Listing, shown: Mapping[str, Shown], most: int) -> None:
        after, seconds, _ = self._removal
        if not listing.certain or not listing.items:
            # An empty listing is held by itself, and its time counts for no other hold.
            present = {key for key, record in shown.items() if record.value is not None}
            self._missing = {key: known for key, known in self._missing.items() if key not in present}
            self._must_hold_since = math.inf if not listing.items else self._must_hold_since
            return
        for key, record in shown.items():
            times, since = self._missing.pop(key, (0, listing.ended))
            if record.value is None:
                self._missing[key] = times + 1, since
        due = {k for k, (n, since) in self._missing.items() if n >= after and listing.ended - since > seconds + 5}
        self._must_hold_since = min(self._must_hold_since, listing.ended) if len(due) > most else math.inf
        is_held = listing.ended - self._must_hold_since <= (self._hold_for or 0.0) + 5
        for key in due if len(due) <= most or not is_held else ():
            shown[key].must_be_gone = True


# ── what was heard ─────────────────────────────────────────────────────────────────────────────


def _read(story: Story) -> tuple[list[str], dict[str, Tale]]:
    """The tale of each record, and what is wrong with the messages by themselves."""
    tales: dict[str, Tale] = defaultdict(Tale)
    ids: dict[str, bytes] = {}
    last: dict[str, bytes] = {}
    wrong: list[str] = []
    for topic, published, _ in story.received:
        if topic.startswith(f"{story.base}/bridge/"):
            continue
        body = json.loads(published) if published else None
        if isinstance(body, dict) and body.get("replayed"):
            continue
        place, kind = "/".join(topic.split("/")[:3]), "/".join(topic.split("/")[3:])
        payload = without_source(published) if story.is_renamed and kind.startswith("event/") else published
        repeated, last[topic] = last.get(topic) == payload, payload
        if kind.startswith("event/") and body:
            wrong += _take_event(tales[place], topic, payload, ids, repeated=repeated)
        elif kind == "state" and not repeated:
            tales[place].states.append(body)
        elif kind == "components" and not repeated:
            tales[place].components.append(body)
    return wrong, tales


def without_source(event: bytes) -> bytes:
    """An event as if each bridge were the source of all."""
    return json.dumps(json.loads(event) | {"source": ""}).encode() if event else event


def _take_event(tale: Tale, topic: str, payload: bytes, ids: dict[str, bytes], *, repeated: bool) -> list[str]:
    event = json.loads(payload)
    id = event["id"]
    if id in ids:
        if ids[id] != payload:
            return [f"other bytes: {topic} {id} came again with another content"]
        return [] if repeated else [f"step back: {topic} {id} came again after a later one"]
    ids[id] = payload
    same = [e["id"] for e in tale.events if (e["type"], e["time"], e["data"]) == _gist(event)]
    tale.events.append(event)
    return [f"other id: {topic} {id} is {same[0]} once more"] if same else []


def _gist(event: Json) -> tuple[Any, Any, Any]:
    return event["type"], event["time"], event["data"]


def _of_components(event: Json) -> bool:
    changed = event["data"].get("changed")
    return bool(changed) and all(name.startswith("components.") for name in changed)


# ── records ────────────────────────────────────────────────────────────────────────────────────


def _judge_record(story: Story, place: str, tale: Tale, shown: dict[str, dict[str, list[Shown]]]) -> list[str]:
    entity = place.split("/")[-2]
    call = next(call for call, (owner, _) in _READERS.items() if owner == entity)
    ordered = _in_order_of_rows(tale.events) if story.overtakes else tale.events
    events = [event for event in ordered if not _of_components(event)]
    values = [None if e["type"].endswith(".removed") else e["data"]["record"] for e in events]
    start = None if story.whole else _first_known(tale.states, values)
    times = None if story.heard_at is None else [story.heard_at[event["id"]] for event in events]
    walker = _Walker(place, start, values, _same_record, story.removal, times=times)
    wrong = walker.walk(shown[call].get(place, []), missing=_missing(shown[call]))
    wrong += _broken_order(place, tale.events, by_topic=story.overtakes) + _broken_chain(place, events, start)
    wrong += _states_against(place, tale.states, values, story)
    if entity == "terminal":
        parts = shown["user_terminal_components"].get(place, [])
        if shown["user_terminals"]:
            _excuse_unknown(parts, shown["user_terminals"].get(place, []))
        wrong += _judge_components(place, tale, parts, story)
    return wrong


def _excuse_unknown(parts: Sequence[Shown], listed: Sequence[Shown]) -> None:
    """What belongs to a terminal that was not listed yet is kept aside, and only the newest of it."""
    known_since = min((shown.at for shown in listed if shown.certain and shown.value is not None), default=math.inf)
    for part in parts:
        part.certain = part.certain and part.began >= known_since


def _first_known(states: Sequence[Value], values: Sequence[Value]) -> Value:
    """What was retained before the first event: a recorder that came late, or a restored database, begins there."""
    is_before = bool(states) and states[:1] != values[:1] and states[0] is not None
    return states[0] if is_before else UNKNOWN


def _missing(shown: dict[str, list[Shown]]) -> int:
    """How many records are missing in the newest listing: many at once are held."""
    return sum(bool(story) and story[-1].value is None for story in shown.values())


def _same_record(record: Json, other: Json, threshold: float = 102.0) -> bool:
    """Equal but for what is volatile, and for a position within the threshold (with 2 % for another formula)."""
    ignored = truth.VOLATILE | set(truth.POSITION)
    if any(record.get(name) != other.get(name) for name in (record.keys() | other.keys()) - ignored):
        return False
    if [name in record for name in truth.POSITION] != [name in other for name in truth.POSITION]:
        return False
    height = abs(record.get("elevation_m", 0.0) - other.get("elevation_m", 0.0))
    return "latitude" not in record or max(truth.metres(record, other), height) <= threshold


class _Walker:
    """Follows the announced values of one record through what the listings showed.

    It keeps every number of announcements that may have been made so far: a listing that was accepted for
    certain leaves only those whose last announcement is what it showed.
    """

    def __init__(
        self,
        place: str,
        start: Value,
        values: Sequence[Value],
        same: Callable[[Json, Json], bool],
        removal: tuple[int, float, int],
        *,
        times: Sequence[float] | None = None,
        may_be_cleared: bool = False,
    ) -> None:
        self._place = place
        self._may_be_cleared = may_be_cleared
        self._times = None if times is None else [0.0, *times]
        self._announced = [start, *values]
        self._same = same
        self._removal = removal

    def walk(self, shown: Sequence[Shown], *, missing: int = 0) -> list[str]:
        """What was not announced, and what was announced and never shown."""
        wrong: list[str] = []
        made = {0}
        for listed in shown:
            made |= self._cleared_after(made)
            after = {n for n in made if self._may_stay(n, listed)}
            after |= {n + 1 for n in made if n + 1 < len(self._announced) and self._fits(n + 1, listed)}
            if not after:
                wrong.append(f"lost event: {self._place}: nothing told of {listed.value!r:.300}")
                after = {n for n in range(min(made), len(self._announced)) if self._fits(n, listed)} or made
            made = after
        if max(made) + 1 < len(self._announced):
            phantom = self._announced[max(made) + 1]
            wrong.append(
                f"phantom event: {self._place}: nothing showed {'a removal' if phantom is None else phantom!r:.300}"
            )
        return wrong + self._not_removed(shown, max(made), missing)

    def _cleared_after(self, made: set[int]) -> set[int]:
        """The clears that may follow, where something else than this call's listings brings them."""
        following = {n + 1 for n in made if n + 1 < len(self._announced)} if self._may_be_cleared else set()
        return {n for n in following if self._announced[n] is None}

    def _may_stay(self, number: int, listed: Shown) -> bool:
        announced = self._announced[number]
        if listed.must_be_gone and announced is not UNKNOWN:
            return announced is None
        if not listed.certain or listed.value is None or announced is UNKNOWN:
            return True
        return announced is not None and self._same(announced, listed.value)

    def _fits(self, number: int, listed: Shown) -> bool:
        announced = self._announced[number]
        if self._times and number and not listed.at <= self._times[number] < listed.until:
            return False
        if announced is None:
            return self._may_be_removed(listed)
        return listed.value is not None and (announced is UNKNOWN or self._same(announced, listed.value))

    def _may_be_removed(self, listed: Shown) -> bool:
        """A record that is missing for long may go, unless that many were missing with it that all are held."""
        after, seconds, hold = self._removal
        if listed.missing < after or listed.missing_for < seconds - 1:
            return False
        # Those that are missing for longer may be removed already.
        with_it = sum(after <= missing <= listed.missing for missing in listed.all_missing)
        return with_it <= max(hold, len(listed.all_missing) // 10) or listed.may_end_hold

    def _not_removed(self, shown: Sequence[Shown], number: int, missing: int) -> list[str]:
        """A record that is missing for long, with few others, and for certain, has a `removed`."""
        after, seconds, hold = self._removal
        last = [listed for listed in shown[-after - 1 :] if listed.certain and listed.missing]
        gone = len(last) > after > 0 and last[-1].missing_for > seconds + 5 and missing <= hold
        if gone and self._announced[number] not in (None, UNKNOWN):
            return [f"lost event: {self._place}: nothing told of its removal"]
        return []


def _broken_order(place: str, events: Sequence[Json], *, by_topic: bool) -> list[str]:
    """Rows of one journal come in its order, whatever their topic; or only those of one topic."""
    last: dict[tuple[str, str], int] = {}
    wrong = []
    for event in events:
        journal, _, number = event["id"].rpartition(":")
        stream = (journal, event["type"] if by_topic else "")
        if int(number) < last.get(stream, 0):
            wrong.append(f"broken order: {place} {event['id']} came after {journal}:{last[stream]}")
        last[stream] = int(number)
    return wrong


def _in_order_of_rows(events: Sequence[Json]) -> list[Json]:
    """The events in the order of their rows; those of a later journal come after those of the one before."""
    journals = list(dict.fromkeys(event["id"].rpartition(":")[0] for event in events))

    def row(event: Json) -> tuple[int, int]:
        journal, _, number = event["id"].rpartition(":")
        return journals.index(journal), int(number)

    return sorted(events, key=row)


def _broken_chain(place: str, events: Sequence[Json], before: Value) -> list[str]:
    """Each event begins where the one before it ended, and its record is that one's with its changes."""
    wrong = []
    for event in events:
        changed, record = event["data"].get("changed"), event["data"]["record"]
        if event["type"].endswith(".added"):
            broken = before is not None and before is not UNKNOWN
        elif before is None:
            broken = True
        else:
            broken = before is not UNKNOWN and not _follows(before, record, changed or {})
        if broken:
            wrong.append(f"broken chain: {place} {event['id']} {event['type']} after {before!r:.200}")
        before = None if event["type"].endswith(".removed") else record
    return wrong


def _follows(before: Json, record: Json, changed: Json) -> bool:
    if any(before.get(name) != change["from"] or record.get(name) != change["to"] for name, change in changed.items()):
        return False
    rest = (before.keys() | record.keys()) - truth.VOLATILE - changed.keys()
    return all(before.get(name) == record.get(name) for name in rest)


def _states_against(place: str, states: list[Value], values: list[Value], story: Story) -> list[str]:
    """The retained record says what the events say, one after the other."""
    if not story.whole and states and states[:1] != values[:1]:
        states = states[1:]
    for at, (state, value) in enumerate(zip(states, values, strict=False)):
        if state != value:
            kind = "step back" if state in values[:at] else "wrong state"
            return [f"{kind}: {place}/state says {state!r:.200} instead of {value!r:.200}"]
    if len(states) > len(values):
        kind = "step back" if states[len(values)] in values else "wrong state"
        return [f"{kind}: {place}/state says {states[len(values)]!r:.200} without an event"]
    if len(states) < len(values) and not story.is_cut:
        return [f"wrong state: {place}/state never said {values[len(states)]!r:.200}"]
    return []


# ── components ─────────────────────────────────────────────────────────────────────────────────


def _judge_components(place: str, tale: Tale, shown: Sequence[Shown], story: Story) -> list[str]:
    """Components are told by their retained topic, and each change of it by an event of their terminal."""
    # They go with their terminal, whenever that is removed, and may be back before they are listed again.
    removals = sum(event["type"].endswith(".removed") for event in tale.events)
    start = None if story.whole else UNKNOWN
    walker = _Walker(
        f"{place}/components",
        start,
        tale.components,
        lambda a, b: a == b,
        (0, 0.0, _NEVER_HELD),
        may_be_cleared=tale.components.count(None) <= removals,
    )
    published = [event["data"]["changed"] for event in tale.events if _of_components(event)]
    wanted = [
        _parts_changed(before, after)
        for before, after in zip(tale.components, tale.components[1:], strict=False)
        if before is not None and after is not None
    ]
    wrong = walker.walk(shown)
    wrong += [
        f"lost event: {place}: components changed by {change!r:.200}" for change in wanted if change not in published
    ]
    extra = [change for change in published if change not in wanted]
    if start is UNKNOWN and tale.components and extra and _fits(extra[0], "to", tale.components[0]):
        # From what was announced before the recorder came.
        extra = extra[1:]
    if story.is_cut and tale.components and extra and _fits(extra[-1], "from", tale.components[-1]):
        extra = extra[:-1]
    return wrong + [f"broken chain: {place}: an event says {change!r:.200} of its components" for change in extra]


def _fits(change: Json, end: str, components: Value) -> bool:
    """Whether one end of a change is what these components are."""
    parts = {f"components.{name}": version for name, version in (components or {}).get("components", {}).items()}
    return all(parts.get(name) == ends[end] for name, ends in change.items())


def _parts_changed(before: Json, after: Json) -> Json:
    first, other = before["components"], after["components"]
    return {
        f"components.{name}": {"from": first.get(name), "to": other.get(name)}
        for name in first.keys() | other.keys()
        if first.get(name) != other.get(name)
    }


# ── samples ────────────────────────────────────────────────────────────────────────────────────

Version = tuple[str, str, int, str]
"""Topic's beginning, report, time in ms, and the values as sorted JSON."""


def _judge_samples(story: Story, listings_made: Sequence[Listing]) -> list[str]:
    """Samples of an id that is not known yet are kept aside: of one that is corrected meanwhile the last must come."""
    wrong, published = _heard_samples(story)
    possible: set[Version] = set()
    certain: set[Version] = set()
    last: dict[tuple[str, str, int], Version] = {}
    products, terminals = _Known(listings_made, "products"), _Known(listings_made, "user_terminals")
    for listing in listings_made:
        known = products if "throughput" in listing.call else terminals
        for id, version in _versions(listing, story.base):
            possible.add(version)
            if listing.certain:
                last[version[:3]] = version
                certain |= {version} if known.has(id, listing.began) else set()
    wrong += [f"phantom sample: {version}" for version in sorted(published - possible)]
    if story.whole:
        wrong += [f"sample missing: {version}" for version in sorted({*certain, *last.values()} - published)]
    return wrong


def _versions(listing: Listing, base: str) -> Iterable[tuple[str, Version]]:
    """The samples of a report's listing, each with the id that it is of."""
    report = next((name for call, name in _REPORTS.values() if call == listing.call), None)
    if report is None:
        return
    entity = "product" if report == "throughput" else "terminal"
    for item in listing.items:
        place = f"{base}/{entity}/{truth.level(_id(item))}"
        for measured in item.get("measurement", ()):
            known = [indicator for indicator in measured["performanceIndicator"] if indicator["value"] is not None]
            if not known:
                continue
            values = dict(_value(indicator, report) for indicator in known)
            at = round(_seconds(measured["timestamp"]) * 1000)
            yield _id(item), (place, report, at, json.dumps(values, sort_keys=True))


def _value(indicator: Json, report: str) -> tuple[str, Any]:
    name, value = indicator["name"], indicator["value"]
    if report == "traffic":
        return f"{name[:-2].lower()}_{name[-2:].lower()}_bytes", int(value)
    if name == "resourceState":
        return "resource_state", value
    field, factor = _INDICATORS.get(name, (name, 1.0))
    return field, round(value * factor) if factor != 1.0 else float(value)


_OWN = {"imei", "product_id", "product_name", "report", "time", "ts", "corrected"}


def _heard_samples(story: Story) -> tuple[list[str], set[Version]]:
    """Every version of a sample that was heard, and what is wrong with the order of its topics."""
    wrong: list[str] = []
    past: dict[str, list[Json]] = defaultdict(list)
    versions: dict[tuple[Version, bool], str] = {}
    for topic, payload, _ in story.received:
        levels = topic.split("/")
        if len(levels) != 5 or levels[3] not in ("metric", "history") or not payload:
            continue
        body = json.loads(payload)
        if body.get("replayed") or (past[topic] and past[topic][-1] == body):
            continue
        wrong += _out_of_order(topic, body, past[topic])
        past[topic].append(body)
        if levels[4] == "presence":
            continue
        values = {name: value for name, value in body.items() if name not in _OWN}
        version = ("/".join(levels[:3]), levels[4], body["ts"], json.dumps(values, sort_keys=True))
        corrected = bool(body.get("corrected"))
        before = versions.setdefault((version, corrected), levels[3])
        if before != levels[3] and not corrected:
            wrong.append(f"sample twice: {topic} says again what {before} said: {version}")
    return wrong, {version for version, _ in versions}


def _out_of_order(topic: str, body: Json, past: Sequence[Json]) -> list[str]:
    if body in past:
        kind = "sample twice" if "/history/" in topic else "step back"
        return [f"{kind}: {topic} went back to {body['time']}"]
    if "/metric/" in topic and past and body["ts"] < past[-1]["ts"]:
        return [f"step back: {topic} says {body['time']} after {past[-1]['time']}"]
    if not topic.endswith("/presence") and not body.get("corrected") and any(p["ts"] == body["ts"] for p in past):
        return [f"other bytes: {topic} says {body['time']} with other values, not marked as corrected"]
    return []


# ── ids of events ──────────────────────────────────────────────────────────────────────────────


def judge_ids(received: Iterable[tuple[str, bytes, bool]], *, is_renamed: bool = False) -> list[str]:
    """An id is that of one event for ever, also after an older database took the place of a newer one."""
    contents: dict[str, bytes] = {}
    wrong = []
    for topic, payload, _ in received:
        if "/event/" not in topic or (event := json.loads(payload)).get("replayed"):
            continue
        content = without_source(payload) if is_renamed else payload
        if contents.setdefault(event["id"], content) != content:
            wrong.append(f"other bytes: {topic} {event['id']} came again with another content")
    return list(dict.fromkeys(wrong))


# ── what is retained ───────────────────────────────────────────────────────────────────────────


def judge_retained(story: Story) -> list[str]:
    """A new subscriber is given what was said last on each topic, and nothing else."""
    if story.retained is None:
        return []
    last: dict[str, Any] = {}
    for topic, payload, retain in story.received:
        if retain and not topic.startswith(f"{story.base}/bridge/"):
            last[topic] = json.loads(payload) if payload else None
    given = {t: p for t, p in story.retained.items() if not t.startswith(f"{story.base}/bridge/")}
    return [
        f"wrong retained: {topic} is {given.get(topic)!r:.200} instead of {last.get(topic)!r:.200}"
        for topic in sorted(last.keys() | given.keys())
        if last.get(topic) != given.get(topic)
    ]
