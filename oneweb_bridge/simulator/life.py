"""What happens to terminals as time goes by: outages, positions, firmware, coming and going.

Everything is random access in time. Time is cut into slots per terminal, and each slot holds one event
whose place is drawn from (seed, terminal, slot): to know the state at a time, one slot is looked at, and no
history is kept.
"""

import math
from typing import NamedTuple

from .changes import Changes
from .draws import About, between, draw, mix
from .fleet import Fleet

_METRES_PER_DEGREE = 111_320.0
_FAST = 750.0  # seconds between two flips of one terminal in a small fleet: 25 of them flip every 30 s
_CALM = 30_000.0  # the same in a large fleet: 1 % of it in 5 minutes
_AWAY_CYCLE = 7200.0
_AWAY = 1500.0


class Position(NamedTuple):
    """Degrees and metres."""

    latitude: float
    longitude: float
    elevation: float | None


class Life:
    """The course of every terminal's life, as functions of time."""

    def __init__(self, fleet: Fleet, changes: Changes, liveliness: float) -> None:
        self.fleet = fleet
        self.changes = changes
        self._seed = fleet.seed
        self._lively = liveliness > 0
        calm = min(_CALM, max(_FAST, 30.0 * fleet.size)) / (liveliness or 1.0)
        self.slot = 2 * calm
        """Seconds in which a terminal has one outage, thus two flips."""
        self._update_slot = 10 * self.slot
        self._away_cycle = _AWAY_CYCLE / (liveliness or 1.0)

    def state(self, index: int, at: float) -> str:
        """`online`, `offline`, or what was asked for."""
        ordered = self.changes.state_at(index, at)
        if ordered:
            return ordered[1]
        return "online" if self._outage(index, self.changes.story_time(at)) is None else "offline"

    def is_online(self, index: int, at: float) -> bool:
        """Whether it is neither offline nor anything else that was asked for."""
        return self.state(index, at) == "online"

    def last_online(self, index: int, at: float) -> float | None:
        """`at` if it is online then, else when it was last; None if it never was."""
        for _ in range(20):
            ordered = self.changes.state_at(index, at)
            if ordered is None:
                outage = self._outage(index, self.changes.story_time(at))
                return at if outage is None else outage if outage > 0 else None
            if ordered[1] == "online":
                return at
            at = ordered[0] - 0.001
        return at

    def last_seen(self, index: int, at: float) -> float:
        """When it was last heard of: at most some seconds ago while it is online."""
        online = self.last_online(index, at)
        return self._seen(index, online)

    def condition(self, index: int, at: float) -> tuple[str, float]:
        """State and time last seen."""
        ordered, online = self.changes.state_at(index, at), self.last_online(index, at)
        state = ordered[1] if ordered else "online" if online == at else "offline"
        return state, self._seen(index, online)

    def position_seen(self, index: int, at: float) -> Position:
        """Where it was when it was last seen; in a frozen span, when it was last seen before."""
        return self.position(index, self.last_seen(index, self.changes.story_time(at)))

    def _seen(self, index: int, online: float | None) -> float:
        if online is None:
            return self.fleet.started(index) + 900.0
        rhythm = 10 + mix(self._seed, About.SEEN, index) % 11
        return online - (online + mix(self._seed, About.SEEN, index, 1) % 1000) % rhythm

    def _outage(self, index: int, at: float) -> float | None:
        """When the outage around `at` began; None if there is none, 0 if it has no begin."""
        if self.fleet.is_never_online(index):
            return 0.0
        if not self._lively:
            return None
        phase = draw(self._seed, About.PHASE, index) * self.slot
        number = math.floor((at - phase) / self.slot)
        length = self.slot * between(0.02, 0.2, self._seed, About.OUTAGE_LENGTH, index, number)
        rest = (self.slot - length) * draw(self._seed, About.OUTAGE_START, index, number)
        begin = phase + number * self.slot + rest
        return begin if begin <= at < begin + length else None

    def is_present(self, index: int, at: float) -> bool:
        """Whether a terminal that comes and goes is there."""
        if not self._lively or not self.fleet.comes_and_goes(index):
            return True
        story = self.changes.story_time(at)
        phase = draw(self._seed, About.PRESENCE, index) * self._away_cycle
        return (story + phase) % self._away_cycle >= _AWAY * self._away_cycle / _AWAY_CYCLE

    def firmware_level(self, index: int, at: float) -> int:
        """How many updates a terminal has had, in some count."""
        if not self._lively:
            return mix(self._seed, About.LEVEL, index) % 40
        phase = draw(self._seed, About.FIRMWARE_PHASE, index) * self._update_slot
        passed = math.floor((self.changes.story_time(at) + phase) / self._update_slot)
        return passed + mix(self._seed, About.LEVEL, index) % 40

    def position(self, index: int, at: float) -> Position:
        """Where a terminal was at a time: on its round, or within some metres of its mount."""
        ordered = self.changes.positions.get(index)
        if ordered:
            return Position(*ordered)
        home = self.home(self.fleet.site_of(index))
        story = self.changes.story_time(at)
        if self.fleet.is_moving(index) and self._lively:
            north, east = self._round(index, story)
        else:
            minute = int(story // 60) if self._lively else 0
            north = between(-3, 3, self._seed, About.JITTER, index, minute, 1)
            east = between(-3, 3, self._seed, About.JITTER, index, minute, 2)
        narrowing = max(0.1, math.cos(math.radians(home.latitude)))
        return Position(
            round(home.latitude + north / _METRES_PER_DEGREE, 6),
            round(home.longitude + east / _METRES_PER_DEGREE / narrowing, 6),
            home.elevation,
        )

    def home(self, site: int) -> Position:
        """Where a site is."""
        town = self.fleet.town(site)
        return Position(
            round(town.latitude + between(-0.2, 0.2, self._seed, About.POSITION, site, 1), 6),
            round(town.longitude + between(-0.3, 0.3, self._seed, About.POSITION, site, 2), 6),
            round(between(2, 80, self._seed, About.POSITION, site, 3) * 4) / 4,
        )

    def _round(self, index: int, at: float) -> tuple[float, float]:
        """Metres north and east of home, on a circle at a steady 3 to 12 m/s."""
        radius = between(4_000, 40_000, self._seed, About.COURSE, index, 1)
        speed = between(3, 12, self._seed, About.COURSE, index, 2)
        angle = math.fmod(at * speed / radius, 2 * math.pi) + index
        return radius * math.cos(angle), radius * math.sin(angle)
