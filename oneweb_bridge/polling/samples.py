"""Decides which samples are new or corrected and to which topic each goes. Pure.

Each is published exactly once, and a topic never goes back in time.

The newest sample of a report and id goes to its `metric` topic, every other one to `history`. A
sample is known by its time and the hash of its values; the same time with other values is a
correction.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Literal

import msgspec

from oneweb_bridge.decode.values import parse_time
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.records import (
    Batch,
    DecodedRecord,
    Entry,
    Fields,
    KnownSamples,
    NewestSampleWrite,
    OnlineTerminal,
    Sample,
    SeenSample,
)
from oneweb_bridge.model.value_types import value_types


def believable(past: KnownSamples, latest: int) -> KnownSamples:
    """The known samples without those of a time that is not believed now: a wrong clock may have let them in."""
    seen = {ts: hash_ for ts, hash_ in past.seen.items() if ts <= latest}
    if past.ts <= latest:
        return KnownSamples(past.ts, past.hash, seen)
    newest = max(seen, default=-1)
    return KnownSamples(newest, seen.get(newest, 0), seen)


class SampleContext(msgspec.Struct, frozen=True, kw_only=True):
    """What one slice of samples is compared with.

    `past` has the known samples of each id, and is brought forward as samples are published; `latest` is
    the newest time of each id in the whole answer; `removed` ids have no metric topic. Samples older than
    `horizon` cannot be told from those that were published long ago. Times in ms.
    """

    entity: str
    past: dict[str, KnownSamples]
    latest: Mapping[str, int]
    removed: frozenset[str] = frozenset()
    horizon: int = 0
    now: int = 0


def hash_of(values: Fields) -> int:
    """64 bits that are equal only for equal values."""
    return int.from_bytes(blake2b(encode(sorted(values.items())), digest_size=8).digest(), signed=True)


def classify_sample(
    past: KnownSamples | None, ts: int | None, hash_: int, horizon: int
) -> Literal["new", "corrected", "known"]:
    """Classifies a sample as new, corrected or known (published before)."""
    if past is None:
        return "new"
    if ts is None:
        return "known" if past.hash == hash_ else "new"
    if ts in past.seen:
        return "known" if past.seen[ts] == hash_ else "corrected"
    return "new" if ts > past.ts or ts >= horizon else "known"


def batch_new_samples(samples: Iterable[Sample], context: SampleContext) -> Batch:
    """Entries for those of the samples, oldest first, that are new or corrected."""
    batch = Batch()
    for sample in samples:
        past = context.past.get(sample.id)
        hash_ = hash_of(sample.values)
        classification = classify_sample(past, sample.ts, hash_, context.horizon)
        if classification != "known":
            past = context.past.setdefault(sample.id, KnownSamples()) if past is None else past
            _publish(sample, hash_, past, context, batch, corrected=classification == "corrected")
    return batch


def _publish(
    sample: Sample, hash_: int, past: KnownSamples, context: SampleContext, batch: Batch, *, corrected: bool
) -> None:
    # One without a time gets that of the poll; a clock that was set back must not put it behind the one before.
    ts = max(context.now, past.ts + 1) if sample.ts is None else sample.ts
    newest = ts >= past.ts and ts >= context.latest.get(sample.id, ts)
    is_removed = sample.id in context.removed
    doc = sample_payload(sample, context.entity, ts, corrected=corrected)
    if corrected or is_removed or not newest:
        batch.entries.append(Entry(context.entity, sample.id, "history", sample.report, ts, doc))
    if newest and is_removed:
        # It counts as the newest known, so that nothing older follows it when its topic is back.
        batch.newest.append(NewestSampleWrite(context.entity, sample.report, sample.id, ts, hash_))
    elif newest:
        index = len(batch.entries)
        batch.entries.append(Entry(context.entity, sample.id, "metric", sample.report, ts, doc))
        types = value_types(sample.values)
        batch.newest.append(NewestSampleWrite(context.entity, sample.report, sample.id, ts, hash_, doc, index, types))
    if newest:
        past.ts, past.hash = ts, hash_
    batch.seen.append(SeenSample(context.entity, sample.report, sample.id, ts, hash_))
    past.seen[ts] = hash_


def sample_payload(sample: Sample, entity: str, ts: int, *, corrected: bool = False) -> bytes:
    """The payload of a sample: its key, its time, its values."""
    payload: dict[str, object] = {"imei" if entity == "terminal" else "product_id": sample.id}
    if sample.report != PRESENCE:
        payload["report"] = sample.report
    payload |= {"time": rfc3339(ts), "ts": ts, **sample.labels, **sample.values}
    if corrected:
        payload["corrected"] = True
    return encode(payload)


# ── reports that stop ──────────────────────────────────────────────────────────────────────────


STEPS_WITHOUT_SAMPLE = 5
"""After so many a report counts as stopped. Single samples come late; in a fleet of ten thousand healthy terminals,
three late samples in a row happen about once a day."""


class StopThreshold(msgspec.Struct, frozen=True):
    """How late a report is by nature, and how often it is asked for, in ms."""

    lateness: int
    interval: int

    def max_age(self, online: Iterable[OnlineTerminal]) -> int:
        """Age in ms above which a report has stopped: lateness, and some times the longer of interval and step."""
        steps = sorted(terminal.newest - terminal.before for terminal in online if terminal.before >= 0)
        median_step = steps[len(steps) // 2] if steps else 0
        return self.lateness + STEPS_WITHOUT_SAMPLE * max(self.interval, median_step)


class StoppedReports(msgspec.Struct):
    """State between polls: since when each terminal is online, and whose stopped report was alerted."""

    online_since: dict[str, int] | None = None
    alerted: set[str] = set()


def find_stopped(online: Sequence[OnlineTerminal], online_since: Mapping[str, int], oldest: int) -> list[str]:
    """The terminals without a sample newer than `oldest` though online since then, while at least half have one."""
    late = [terminal.id for terminal in online if terminal.newest < oldest]
    on_time = len(online) - len(late)
    if on_time == 0 or 2 * on_time < len(online) - 1:
        return []
    return [id for id in late if online_since.get(id, 0) <= oldest]


def newly_stopped(
    reports: StoppedReports, online: Sequence[OnlineTerminal], threshold: StopThreshold, now: int, polled: int = -1
) -> list[str]:
    """The terminals whose report has stopped and was not alerted since it last went on. Brings `reports` forward.

    One that has just come back online is given the same time. At the first poll since the bridge started, the last
    event of its record is when it may have come back. Where the poll before, that of `polled`, is longer ago than that
    time, each may have been offline meanwhile, and has it again.
    """
    before, oldest = reports.online_since, now - threshold.max_age(online)
    if 0 <= polled < oldest:
        reports.online_since = {terminal.id: now for terminal in online}
    elif before is None:
        reports.online_since = {terminal.id: terminal.event_at for terminal in online}
    else:
        reports.online_since = {terminal.id: before.get(terminal.id, now) for terminal in online}
    reports.alerted -= {terminal.id for terminal in online if terminal.newest >= oldest}
    stopped = [id for id in find_stopped(online, reports.online_since, oldest) if id not in reports.alerted]
    reports.alerted.update(stopped)
    return stopped


# ── presence ───────────────────────────────────────────────────────────────────────────────────

PRESENCE = "presence"
"""The sample that terminals themselves are: when they were first and last seen."""

PRESENCE_INTERVAL_MS = 3_600_000
"""Presence is published at most this often per terminal."""


def presence_of(reading: DecodedRecord) -> Sample | None:
    """The presence of a terminal, or None when the API does not say when it was seen."""
    last_seen = parse_time(reading.fields.get("last_seen"))
    if last_seen is None:
        return None
    values: Fields = {name: reading.fields[name] for name in ("first_seen", "last_seen") if name in reading.fields}
    return Sample(PRESENCE, reading.id, last_seen, values)
