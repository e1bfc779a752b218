"""Performance reports: which measurements there are, when they become visible, and what they say.

A measurement is known by its time alone. Its times lie on the report's cycle, it becomes visible when the
report's lateness has passed (a few later), and its values are drawn from that time (a few change once, some
time after).
"""

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from .changes import Changes
from .clock import parse_rfc3339, rfc3339
from .draws import About, between, draw, mix
from .fleet import EXTRA_PRODUCTS, PUBLIC_HOST, Fleet
from .life import Life
from .options import Options
from .plans import PLANS, plan_of

Json = dict[str, Any]
Window = tuple[float, float]
"""Begin and end in seconds since the epoch, the end not included."""


class Report(msgspec.Struct, frozen=True):
    """A report definition; times in seconds."""

    name: str
    granularity: str
    period: float
    offset: float
    spread: float
    """Seconds over which the terminals' offsets are spread."""
    lateness: float
    speaks_of_offline: bool = False
    """Whether there are measurements of a terminal that is offline."""


TERMINAL_REPORTS = {
    report.name: report
    for report in (
        Report("linkAvailability", "g_1h", 3600, 3175, 1, 5400, speaks_of_offline=True),
        Report("signalQuality", "na", 600, 3, 6, 2400),
        Report("resourceState", "na", 300, 0, 60, 300, speaks_of_offline=True),
        Report("traffic", "na", 600, 3, 6, 1800),
        Report("linkMetrics", "g_15mn", 900, 0, 1, 3600),
    )
}
THROUGHPUT = Report("throughput", "g_15mn", 900, 0, 1, 3000, speaks_of_offline=True)

_LATE = 0.01  # share of measurements that become visible one to three periods later than the others
_CORRECTED = 0.01  # share whose values change two periods after they became visible
_RESET_PERIODS = 300  # periods in which each pair of traffic counters is reset once
_TRAFFIC = ((("cnxTx", "cnxRx"), 6.5), (("mgmtTx", "mgmtRx"), 3.0), (("wanTx", "wanRx"), 6.0))
"""Pairs of counters that are reset together, and the magnitude of the busiest terminal's bytes per second."""
_UNITS = {
    "rsrp": "dBm",
    "rssi": "dBm",
    "sinr": "dB",
    "latency": "ms",
    "jitter": "ms",
    "packetLoss": "%",
    "linkAvailability": "%",
    "resourceState": "na",
}


class Reports:
    """Builds a report of one terminal or product, as it is shown at a time."""

    def __init__(self, fleet: Fleet, life: Life, changes: Changes, options: Options) -> None:
        self._fleet = fleet
        self._life = life
        self._changes = changes
        self._seed = fleet.seed
        self._options = options
        self._scale = options.report_period
        self._scaled_from = parse_rfc3339(options.report_period_from) if options.report_period_from else 0.0
        """Since when the periods are scaled; before that they are OneWeb's own."""
        self._href = f"{PUBLIC_HOST}{options.shape.performance_base}/"

    def terminal_report(self, report: Report, index: int, window: Window | None, at: float) -> Json:
        """A report of a terminal: its newest measurement, or those of a window."""
        imei = self._fleet.imei(index)
        return self._entry(report, owner="userTerminal", key=imei, index=index, window=window, at=at)

    def throughput(self, index: int, window: Window | None, at: float) -> Json:
        """The throughput report of a product."""
        product = self._fleet.product_id(index)
        built = self._entry(THROUGHPUT, owner="product", key=product, index=index, window=window, at=at)
        built["name"] = plan_of(index).name
        return built

    def _entry(self, report: Report, *, owner: str, key: str, index: int, window: Window | None, at: float) -> Json:
        times = self._newest(report, index, at) if window is None else self._within(report, index, window, at)
        return {
            "id": key,
            "href": f"{self._href}{owner}/{report.name}/{key}",
            "@type": "PerformanceReport",
            "report": report.name,
            "granularity": report.granularity,
            "measurement": [
                {
                    "timestamp": rfc3339(time),
                    "performanceIndicator": self._indicators(report, index, time, at),
                }
                for time in times
            ],
        }

    # which measurements

    def _scale_at(self, time: float) -> float:
        return self._scale if time >= self._scaled_from else 1.0

    def period(self, report: Report, time: float) -> int:
        """Whole seconds between two measurements around a time."""
        return max(1, round(report.period * self._scale_at(time)))

    def lateness(self, report: Report) -> float:
        """Seconds from a measurement until it is visible."""
        return report.lateness * self._options.lateness_scale

    def _offset(self, report: Report, index: int, time: float) -> int:
        own = mix(self._seed, About.OFFSET, index, round(report.period)) % round(report.spread)
        return round(report.offset * self._scale_at(time) + own) % self.period(report, time)

    def _visible_from(self, report: Report, index: int, time: int) -> float:
        visible_at = time + self.lateness(report)
        if draw(self._seed, About.LATE, index, time, round(report.offset)) < _LATE:
            visible_at += self.period(report, time) * between(1, 3, self._seed, About.LATE, index, time, 1)
        return visible_at

    def _exists(self, report: Report, index: int, time: int) -> bool:
        return report.speaks_of_offline or self._life.is_online(index, time)

    def _newest(self, report: Report, index: int, at: float) -> list[int]:
        """The time of the newest measurement that is visible; nothing if it is too long ago."""
        end = at - self.lateness(report)
        if end < self._scaled_from:
            return self._newest_between(report, index, (0.0, end), at)
        newest = self._newest_between(report, index, (self._scaled_from, end), at)
        return newest or self._newest_between(report, index, (0.0, self._scaled_from - 1), at)

    def _newest_between(self, report: Report, index: int, span: Window, at: float) -> list[int]:
        """The same in a span with one period. Both of its ends are included."""
        begin, end = max(span[0], at - self._options.keep, self._fleet.started(index)), span[1]
        period, offset = self.period(report, end), self._offset(report, index, end)
        time = math.floor((end - offset) / period) * period + offset
        for _ in range(60):
            if time < begin:
                return []
            if not self._exists(report, index, time):
                online = self._life.last_online(index, time)
                if online is None:
                    return []
                time = min(time - period, math.floor((online - offset) / period) * period + offset)
            elif self._visible_from(report, index, time) <= at:
                return [time]
            else:
                time -= period
        return []

    def _within(self, report: Report, index: int, window: Window, at: float) -> Iterator[int]:
        """The times in a half-open window that are visible, oldest first."""
        begin = max(window[0], at - self._options.keep, self._fleet.started(index))
        end = min(window[1], at - self.lateness(report) + 1)
        change = min(max(begin, self._scaled_from), end)
        yield from self._visible(report, index, (begin, change), at)
        yield from self._visible(report, index, (change, end), at)

    def _visible(self, report: Report, index: int, window: Window, at: float) -> Iterator[int]:
        """The same for a window with one period."""
        begin, end = window
        period, offset = self.period(report, begin), self._offset(report, index, begin)
        time = math.ceil((begin - offset) / period) * period + offset
        while time < end:
            if self._visible_from(report, index, time) <= at and self._exists(report, index, time):
                yield time
            time += period

    def _version(self, report: Report, index: int, time: int, at: float) -> int:
        """0 for the values that stay; others before a correction, or after one that was asked for."""
        period = self.period(report, time)
        settles = time + self.lateness(report) + 2 * period
        version = 0
        if at < settles and draw(self._seed, About.CORRECTED, index, time, round(report.offset)) < _CORRECTED:
            version = 1
        if self._changes.corrections:
            reach = self.lateness(report) + 2 * period
            version += 2 * self._changes.corrections_of(report.name, index, time, reach, at)
        return version

    # what they say

    def _indicators(self, report: Report, index: int, time: int, at: float) -> list[Json]:
        version = self._version(report, index, time, at)
        match report.name:
            case "traffic":
                return self._traffic(report, index, time, version)
            case "throughput":
                return self._throughput(index, time, version)
            case "signalQuality":
                values = self._signal_quality(index, time, version)
            case "linkMetrics":
                values = self._link_metrics(index, time, version)
            case "linkAvailability":
                values = {"linkAvailability": self._availability(report, index, time, version)}
            case _:
                return [_indicator("resourceState", self._life.state(index, time), "na", "status_inspection", "string")]
        return [_indicator(name, value, _UNITS[name], "gauge", "float") for name, value in values.items()]

    def _signal_quality(self, index: int, time: int, version: int) -> dict[str, float]:
        usual = draw(self._seed, About.FIXED, index, 5)
        noise = mix(self._seed, About.VALUE, index, time, version)
        return {
            "rsrp": -40 - int(usual * 4) - noise % 3,
            "rssi": -106 - int(usual * 3) - (noise >> 8) % 3,
            "sinr": round(10.2 - usual * 3 - (noise >> 16) % 60 / 100, 1),
        }

    def _link_metrics(self, index: int, time: int, version: int) -> dict[str, float]:
        noise = draw(self._seed, About.VALUE, index, time, version, 1)
        usual = between(55, 80, self._seed, About.FIXED, index, 6)
        return {
            "latency": round(usual + noise * 12, 1),
            "jitter": round(4 + noise * 7, 1),
            "packetLoss": round(noise**4 * 2, 2),
        }

    def _availability(self, report: Report, index: int, time: int, version: int) -> float:
        """Percent of the hour, looked at in five places."""
        period = self.period(report, time)
        share = sum(self._life.is_online(index, time - period * part / 5) for part in range(5)) * 20.0
        noise = draw(self._seed, About.VALUE, index, time, version, 2)
        return round(share - noise, 2) if share and (noise > 0.6 or version) else share

    def _traffic(self, report: Report, index: int, time: int, version: int) -> list[Json]:
        """Cumulative bytes; or those of the period, if the shape says so."""
        period = self.period(report, time)
        # What will be corrected is a value taken too early, so that no counter falls by a correction.
        counted = self.counters(index, time - period * min(0.05 * version, 0.9))
        if self._options.shape.traffic == "counter":
            return [_indicator(name, value, "B", "cumulative", "int") for name, value in counted.items()]
        before = self.counters(index, time - period)
        return [
            _indicator(name, value - before[name] if value >= before[name] else value, "B", "delta", "int")
            for name, value in counted.items()
        ]

    def counters(self, index: int, at: float) -> dict[str, int]:
        """The traffic counters: bytes since each pair was last reset."""
        wave = 21_600 * self._scale / (2 * math.pi)
        counted: dict[str, int] = {}
        for pair, (names, magnitude) in enumerate(_TRAFFIC):
            begin = self._reset_before(index, pair, at)
            for number, name in enumerate(names):
                chance = mix(self._seed, About.RATE, index, pair, number)
                rate = 10 ** (magnitude - 4 + 4 * (chance & 0xFFFF) / 0x10000) + 50
                phase = 2 * math.pi * (chance >> 16 & 0xFFFF) / 0x10000
                waves = math.cos(begin / wave + phase) - math.cos(at / wave + phase)
                counted[name] = int(rate * (at - begin + 0.8 * wave * waves))
        return counted

    def _reset_before(self, index: int, pair: int, at: float) -> float:
        """The last reset of a pair of counters: one in each slot, or one that was asked for."""
        ordered = self._changes.reset_before(index, at) if self._changes.resets else 0.0
        slot = _RESET_PERIODS * 600 * self._scale
        if self._options.liveliness == 0:
            return max(ordered, float(self._fleet.started(index)))
        number = math.floor(at / slot)
        reset = (number + draw(self._seed, About.RESET, index, pair, number)) * slot
        if reset > at:
            reset = (number - 1 + draw(self._seed, About.RESET, index, pair, number - 1)) * slot
        return max(ordered, reset)

    def _throughput(self, index: int, time: int, version: int) -> list[Json]:
        """Mbps per traffic class; a class that a product lacks is absent, and some have no values."""
        plan = plan_of(index)
        if index % 25 == 14:
            return []
        is_up = index < EXTRA_PRODUCTS and self._life.is_online(index, time)
        built: list[Json] = []
        for number, traffic_class in enumerate(plan.classes):
            for direction, most in (("Uplink", plan.uplink), ("Downlink", plan.downlink)):
                load = draw(self._seed, About.VALUE, index, time, version, number, most)
                share = _SHARES[traffic_class] if is_up else 0.0
                # Of every other product with this class it is not known.
                is_unknown = traffic_class == "assuredForwarding" and index // len(PLANS) % 2 == 1
                value = None if is_unknown else round(share * most * load**3, 6)
                built.append(_indicator(f"{traffic_class}{direction}", value, "Mbps", "gauge", "float"))
        return built


_SHARES = {"expeditedForwarding": 0.0, "assuredForwarding": 0.3, "bestEffort": 1.0}
"""Traffic class -> the share of a product's bandwidth that it uses at most."""


def _indicator(name: str, value: float | str | None, unit: str, collection: str, kind: str) -> Json:
    return {
        "name": name,
        "value": value,
        "indicatorUnit": unit,
        "collectionType": collection,
        "indicatorType": kind,
    }
