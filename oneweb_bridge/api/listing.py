"""A listing while its pages arrive: ids so far, unreadable records, records to decode. Pure.

A page whose records are all as they are stored is cached by the digest of its bytes: when it comes
again in the next listing, nothing of it is decoded or hashed. It is valid until the presence of a
terminal on it is due.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from itertools import zip_longest

import msgspec

from oneweb_bridge.decode.bounds import Bounds
from oneweb_bridge.decode.pages import split_clean_page
from oneweb_bridge.model.records import DecodedRecord


class ListingPage(msgspec.Struct, frozen=True):
    """One page of a listing: the keys of its records, their hashes and, when asked for, the records undecoded.

    `body` is given where it has not been split yet. `time` is the API's clock in ms when it answered.
    `from_cache`: all records are as they are stored, and there are no hashes. `reason` says why the
    first of the unreadable records is, or why the first of the `unanswered` requests for one id was refused.
    """

    ids: list[str]
    hashes: list[bytes]
    unreadable: int
    time: int | None
    unpaged: bool = False
    body: bytes = b""
    records: list[msgspec.Raw] = []
    digest: bytes = b""
    from_cache: bool = False
    reason: str = ""
    unanswered: int = 0

    def raws(self) -> list[msgspec.Raw]:
        """The records in the order of their keys."""
        return split_clean_page(self.body).records if self.body else self.records


class Problems:
    """What could not be read: how many records or samples were set aside, and which fields' values, each with why.

    `values` counts the ids whose value of a field is unparseable.
    """

    def __init__(self) -> None:
        self.set_aside = 0
        self.first = ""
        self.unanswered = 0
        self.first_refusal = ""
        self.values: dict[str, int] = {}
        self.reasons: dict[str, str] = {}

    def add_set_aside(self, reason: str, count: int = 1) -> None:
        """Counts records that are set aside; of all reasons the first is kept."""
        self.set_aside += count
        self.first = self.first or reason

    def add_values(self, id: str, names: Sequence[str], reasons: Sequence[str] = ()) -> None:
        """Counts the unparseable fields of one id. At most MAX_FIELDS different ones are named."""
        for name, reason in zip_longest(names, reasons, fillvalue=""):
            if name in self.values or len(self.values) < MAX_FIELDS:
                self.values[name] = self.values.get(name, 0) + 1
                self.reasons.setdefault(name, f"{id}: {reason}" if reason else id)


MAX_FIELDS = 50
"""Most fields of a call that are named as unreadable; the API's own names of indicators have no end."""


class UnreadableValues:
    """The unparseable fields of stored records, from when each was decoded last.

    A record that did not change is not decoded again, and its values are no more readable than before.
    """

    def __init__(self) -> None:
        self._fields: dict[str, tuple[str, ...]] = {}
        self._first: dict[str, tuple[str, str]] = {}
        """Field -> an id and why its value could not be read: all reasons of a large fleet would take memory."""

    def note(self, reading: DecodedRecord) -> None:
        """Takes over what was just decoded."""
        if reading.unparseable:
            self._fields[reading.id] = reading.unparseable
        else:
            self._fields.pop(reading.id, None)
        for name, reason in zip(reading.unparseable, reading.reasons, strict=False):
            first = self._first.get(name, (reading.id, ""))[0]
            if first == reading.id or name not in self._fields.get(first, ()):
                self._first[name] = reading.id, reason

    def presume(self, id: str, names: Sequence[str]) -> None:
        """Takes fields of a stored record, which was not decoded since the bridge started, for unparseable."""
        if names:
            self._fields[id] = tuple(dict.fromkeys((*self._fields.get(id, ()), *names)))

    def add_to(self, problems: Problems, listed: AbstractSet[str]) -> None:
        """Counts them into the problems of a poll that listed these ids; what is not listed any more is forgotten."""
        self._fields = {id: names for id, names in self._fields.items() if id in listed}
        for id, names in self._fields.items():
            firsts = [self._first.get(name, ("", "")) for name in names]
            problems.add_values(id, names, [reason if first == id else "" for first, reason in firsts])


StagedRow = tuple[int, str, bytes, bytes]
"""Time, key, hash and body of a record that waits until its listing is complete."""


def digest(body: bytes) -> bytes:
    """16 bytes that are equal only for equal pages."""
    return blake2b(body, digest_size=16).digest()


class SkippableHashes(msgspec.Struct, frozen=True):
    """Hashes of stored records that may be skipped when listed unchanged, and how long that holds, in steady ms."""

    hashes: AbstractSet[bytes]
    since: int
    until: int


class PageCache:
    """Pages of the last listing, by digest, whose records were all unchanged. Times in steady ms."""

    def __init__(self) -> None:
        self._pages: dict[bytes, tuple[int, int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def ids(self, digest: bytes, now: int) -> list[str] | None:
        """The keys of a page that need not be decoded now; None of any other."""
        since, until, ids = self._pages.get(digest, (0, 0, b""))
        return msgspec.msgpack.decode(ids, type=list[str]) if since <= now < until else None

    def validity(self, digest: bytes) -> tuple[int, int]:
        """From when to when a cached page may be used."""
        return self._pages[digest][:2]

    def remember_page(self, page: ListingPage, since: int, until: int) -> None:
        """Caches a page whose records are all as they are stored."""
        self._pages[page.digest] = (since, until, msgspec.msgpack.encode(page.ids))


class Listing:
    """One listing while its pages arrive: the ids so far, and what could not be read or believed."""

    def __init__(self, bounds: Bounds, problems: Problems | None = None) -> None:
        self.bounds = bounds
        self.ids: set[str] = set()
        self.listed_count = 0
        self.problems = problems or Problems()
        self.not_believed = 0
        self.unpaged = False
        self.time: int | None = None
        """The API's clock in ms when it answered first."""

    def note_page(self, page: ListingPage) -> None:
        """Takes over all of a page but its records."""
        self.listed_count += len(page.ids)
        if page.unreadable:
            self.problems.add_set_aside(page.reason, page.unreadable)
        if page.unanswered:
            self.problems.unanswered += page.unanswered
            self.problems.first_refusal = self.problems.first_refusal or page.reason
        self.unpaged = self.unpaged or page.unpaged
        self.time = self.time or page.time

    def first_positions(self, ids: Sequence[str]) -> Sequence[int]:
        """Positions of ids that this listing has not had yet. A repeated id counts as unreadable."""
        if len(set(ids)) == len(ids) and self.ids.isdisjoint(ids):
            self.ids.update(ids)
            return range(len(ids))
        positions = []
        for position, id in enumerate(ids):
            if id in self.ids:
                self.problems.add_set_aside(f"{id} is listed twice")
            else:
                self.ids.add(id)
                positions.append(position)
        return positions


class RecordListing(Listing):
    """A listing of records: which of them must be decoded, and how many are stored already."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds)
        self.listed_and_stored = 0
        self.staged_count = 0
        self.kept_aside = set[str]()
        """The ids of what was listed and kept aside, because what it belongs to is not known."""
        self.cache = PageCache()
        """Pages of this listing, for the next one."""

    def has_all(self, stored: int) -> bool:
        """Whether each of the `stored` records was listed, without comparing ids."""
        return self.listed_and_stored == stored

    def add_cached_page(self, page: ListingPage, earlier: PageCache) -> None:
        """Counts the records of a page whose bytes equal a page of the last listing, without decoding them."""
        self.listed_and_stored += len(self.first_positions(page.ids))
        self.cache.remember_page(page, *earlier.validity(page.digest))

    def records_to_decode(self, page: ListingPage, skippable: SkippableHashes) -> list[StagedRow]:
        """The records of a page that must be decoded. A page without any is cached."""
        positions = self.first_positions(page.ids)
        wanted = [position for position in positions if page.hashes[position] not in skippable.hashes]
        self.listed_and_stored += len(positions) - len(wanted)
        self.staged_count += len(wanted)
        if page.digest and not wanted and len(positions) == len(page.ids):
            self.cache.remember_page(page, skippable.since, skippable.until)
        raws = page.raws() if wanted else []
        return [(0, page.ids[position], page.hashes[position], bytes(raws[position])) for position in wanted]


class ReportListing(Listing):
    """A listing of samples in one time window. Times in ms."""

    def __init__(self, bounds: Bounds, begin: int, horizon: int, problems: Problems) -> None:
        super().__init__(bounds, problems)
        self.begin = begin
        """Where the window begins that was asked for; 0 where it is open."""
        self.horizon = horizon
        self.oldest = 1 << 62
        """The oldest sample, of each id without its newest one."""
        self.unsure = 0
        """How many times may mean another hour."""
