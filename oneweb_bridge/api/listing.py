"""A listing while its pages come: what it has shown so far, and which of it somebody must look at. Pure.

A page of which every record was found to be as it is stored is remembered by the digest of its bytes.
When it comes again, nothing of it is looked at. Such a memory lasts for one more listing, and not
beyond the time at which the presence of a terminal on it is due again.
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
    `familiar`: all is as it is stored, and there are no hashes. `reason` says why the first of the
    unreadable records is.
    """

    ids: list[str]
    hashes: list[bytes]
    unreadable: int
    time: int | None
    unpaged: bool = False
    body: bytes = b""
    records: list[msgspec.Raw] = []
    digest: bytes = b""
    familiar: bool = False
    reason: str = ""

    def raws(self) -> list[msgspec.Raw]:
        """The records in the order of their keys."""
        return split_clean_page(self.body).records if self.body else self.records


class Problems:
    """What could not be read: how many records or samples were set aside, and which fields' values, each with why.

    `values` counts the ids whose value of a field nobody could read.
    """

    def __init__(self) -> None:
        self.set_aside = 0
        self.first = ""
        self.values: dict[str, int] = {}
        self.reasons: dict[str, str] = {}

    def add_set_aside(self, reason: str, count: int = 1) -> None:
        """Counts records that are set aside; of all reasons the first is kept."""
        self.set_aside += count
        self.first = self.first or reason

    def add_values(self, id: str, names: Sequence[str], reasons: Sequence[str] = ()) -> None:
        """Counts the fields of one id that have no readable value. No more than MAX_FIELDS different ones are named."""
        for name, reason in zip_longest(names, reasons, fillvalue=""):
            if name in self.values or len(self.values) < MAX_FIELDS:
                self.values[name] = self.values.get(name, 0) + 1
                self.reasons.setdefault(name, f"{id}: {reason}" if reason else id)


MAX_FIELDS = 50
"""Most fields of a call that are named as unreadable; the API's own names of indicators have no end."""


class UnreadableValues:
    """Which fields of which stored records came in a form nobody could read when they were decoded last.

    A record that did not change is not decoded again, and its values are no more readable than before.
    """

    def __init__(self) -> None:
        self._fields: dict[str, tuple[str, ...]] = {}
        self._first: dict[str, tuple[str, str]] = {}
        """Field -> an id and why its value could not be read: all reasons of a large fleet would take memory."""

    def note(self, reading: DecodedRecord) -> None:
        """Takes over what was just decoded."""
        if reading.odd:
            self._fields[reading.id] = reading.odd
        else:
            self._fields.pop(reading.id, None)
        for name, reason in zip(reading.odd, reading.reasons, strict=False):
            first = self._first.get(name, (reading.id, ""))[0]
            if first == reading.id or name not in self._fields.get(first, ()):
                self._first[name] = reading.id, reason

    def add_to(self, problems: Problems, listed: AbstractSet[str]) -> None:
        """Counts them into the problems of a poll that listed these ids; what is not listed any more is forgotten."""
        self._fields = {id: names for id, names in self._fields.items() if id in listed}
        for id, names in self._fields.items():
            firsts = [self._first.get(name, ("", "")) for name in names]
            problems.add_values(id, names, [reason if first == id else "" for first, reason in firsts])


StagedRow = tuple[int, str, bytes, bytes]
"""Time, key, hash and body of a record that waits until its listing is complete."""


def digest(body: bytes) -> bytes:
    """16 bytes by which a page is known again."""
    return blake2b(body, digest_size=16).digest()


class SkippableHashes(msgspec.Struct, frozen=True):
    """The hashes of stored records that need no look when they come with the same one; from and to in steady ms."""

    hashes: AbstractSet[bytes]
    since: int
    until: int


class PageCache:
    """The pages of one call's last listing of which nothing has to be looked at. Times in steady ms."""

    def __init__(self) -> None:
        self._pages: dict[bytes, tuple[int, int, bytes]] = {}

    def ids(self, digest: bytes, now: int) -> list[str] | None:
        """The keys of a page that may be taken at its word now; None of any other."""
        since, until, ids = self._pages.get(digest, (0, 0, b""))
        return msgspec.msgpack.decode(ids, type=list[str]) if since <= now < until else None

    def span(self, digest: bytes) -> tuple[int, int]:
        """From when to when a page is remembered."""
        return self._pages[digest][:2]

    def keep(self, page: ListingPage, since: int, until: int) -> None:
        """Remembers a page of which every record is as it is stored."""
        self._pages[page.digest] = (since, until, msgspec.msgpack.encode(page.ids))


class Listing:
    """What a listing has shown so far: the ids, how many are stored, what could not be read or believed.

    `begin` is where the window begins that was asked for, in ms; `unsure` how many times may mean another hour.
    """

    def __init__(self, bounds: Bounds, horizon: int = 0, problems: Problems | None = None) -> None:
        self.ids: set[str] = set()
        self.shown = 0
        self.known = 0
        self.staged_count = 0
        self.problems = problems or Problems()
        self.not_believed = 0
        self.unsure = 0
        self.begin = 0
        self.unpaged = False
        self.time: int | None = None
        self.oldest = 1 << 62
        self.bounds = bounds
        self.horizon = horizon
        self.familiar = PageCache()

    def note(self, page: ListingPage) -> None:
        """Takes over what a page says besides its records."""
        self.shown += len(page.ids)
        if page.unreadable:
            self.problems.add_set_aside(page.reason, page.unreadable)
        self.unpaged = self.unpaged or page.unpaged
        self.time = self.time or page.time

    def unseen(self, ids: Sequence[str]) -> Sequence[int]:
        """Where the ids stand that were not shown before; those that were count as unreadable."""
        if len(set(ids)) == len(ids) and self.ids.isdisjoint(ids):
            self.ids.update(ids)
            return range(len(ids))
        fresh = []
        for at, id in enumerate(ids):
            if id in self.ids:
                self.problems.add_set_aside(f"{id} is listed twice")
            else:
                self.ids.add(id)
                fresh.append(at)
        return fresh

    def all_stored(self, stored: int) -> bool:
        """Whether every stored record was shown, without looking at each."""
        return self.known == stored

    def pass_over(self, page: ListingPage, earlier: PageCache) -> None:
        """Takes a familiar page at its word."""
        self.known += len(self.unseen(page.ids))
        self.familiar.keep(page, *earlier.span(page.digest))

    def unsettled(self, page: ListingPage, settled: SkippableHashes) -> list[StagedRow]:
        """The records of a page that must be decoded. A page without any is remembered."""
        unseen = self.unseen(page.ids)
        wanted = [at for at in unseen if page.hashes[at] not in settled.hashes]
        self.known += len(unseen) - len(wanted)
        self.staged_count += len(wanted)
        if page.digest and not wanted and len(unseen) == len(page.ids):
            self.familiar.keep(page, settled.since, settled.until)
        raws = page.raws() if wanted else []
        return [(0, page.ids[at], page.hashes[at], bytes(raws[at])) for at in wanted]
