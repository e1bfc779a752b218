"""Samples: each goes out exactly once, whatever the API repeats, and a metric never goes back in time."""

import json
from collections import defaultdict
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.model.records import Batch, DecodedRecord, Entry, KnownSamples, Sample
from oneweb_bridge.polling import samples
from oneweb_bridge.polling.samples import SampleContext, batch_new_samples, classify_sample, hash_of, presence_of

NOW = 1_000_000


def sample(ts: int | None, value: float = 1.0, id: str = "T") -> Sample:
    return Sample("signal_quality", id, ts, {"sinr_db": value})


class StoredSamples:
    """What the store keeps between two slices, and the slices of an answer as a poll makes them."""

    def __init__(self, horizon: int = 0, removed: frozenset[str] = frozenset()) -> None:
        self.past: dict[str, KnownSamples] = {}
        self.horizon = horizon
        self.removed = removed
        self.entries: list[Entry] = []

    def loaded(self) -> dict[str, KnownSamples]:
        return {id: KnownSamples(past.ts, past.hash, dict(past.seen)) for id, past in self.past.items()}

    def poll(self, answer: list[Sample], slice_: int = 1000, now: int = NOW) -> Batch:
        """One answer: what is known is left out, the rest is judged oldest first, in slices."""
        unpublished = [
            s for s in answer if classify_sample(self.past.get(s.id), s.ts, hash_of(s.values), self.horizon) != "known"
        ]
        unpublished.sort(key=lambda s: (s.ts or 0, s.id))
        latest: dict[str, int] = {}
        for s in unpublished:
            latest[s.id] = max(latest.get(s.id, 0), s.ts or 0)
        whole = Batch()
        for start in range(0, len(unpublished), slice_):
            context = SampleContext(
                entity="terminal",
                past=self.loaded(),
                latest=latest,
                removed=self.removed,
                horizon=self.horizon,
                now=now,
            )
            batch = batch_new_samples(unpublished[start : start + slice_], context)
            self.store(batch)
            whole.extend(batch)
        self.entries += whole.entries
        return whole

    def store(self, batch: Batch) -> None:
        """As the tables `newest` and `seen` do, with the newest among the seen."""
        for seen in batch.seen:
            self.past.setdefault(seen.id, KnownSamples()).seen[seen.ts] = seen.hash
        for newest in batch.newest:
            past = self.past[newest.id]
            past.ts, past.hash = newest.ts, newest.hash


def published(batch: Batch) -> list[tuple[str, int, Any]]:
    return [(entry.what, entry.ts, json.loads(entry.body).get("corrected")) for entry in batch.entries]


# --- the payload ----------------------------------------------------------------------------------


def test_document_is_that_of_the_contract() -> None:
    """The payload of a sample is, byte for byte, the example of the contract."""
    measured = Sample(
        "signal_quality",
        "359235170006117",
        1750167607000,
        {"rsrp_dbm": -40.0, "rssi_dbm": -106.0, "sinr_db": 10.2},
    )
    assert samples.sample_payload(measured, "terminal", 1750167607000) == (
        b'{"imei":"359235170006117","report":"signal_quality","time":"2025-06-17T13:40:07.000Z",'
        b'"ts":1750167607000,"rsrp_dbm":-40.0,"rssi_dbm":-106.0,"sinr_db":10.2}'
    )


def test_document_of_a_product_carries_its_key_and_name() -> None:
    """A product's sample says which product it is of, and its name where the API sends it."""
    measured = Sample("throughput", "P", 0, {"be_uplink_bps": 5}, {"product_name": "Maritime"})
    assert json.loads(samples.sample_payload(measured, "product", 0, corrected=True)) == {
        "product_id": "P",
        "report": "throughput",
        "time": "1970-01-01T00:00:00.000Z",
        "ts": 0,
        "product_name": "Maritime",
        "be_uplink_bps": 5,
        "corrected": True,
    }


def test_hash_ignores_the_order_of_values() -> None:
    """Two samples with the same values are the same, however the API orders its indicators."""
    assert hash_of({"a": 1, "b": 2.0}) == hash_of({"b": 2.0, "a": 1})
    assert hash_of({"a": 1.0}) != hash_of({"a": 1.5})
    assert -(2**63) <= hash_of({"a": 1}) < 2**63


# --- one answer after another ---------------------------------------------------------------------


def test_first_sample_is_the_metric() -> None:
    """The first sample of a topic goes to `metric` and is stored as the newest, with the entry that publishes it."""
    batch = StoredSamples().poll([sample(5)])
    assert published(batch) == [("metric", 5, None)]
    assert (batch.newest[0].entry, batch.newest[0].doc) == (0, batch.entries[0].body)


def test_newest_of_an_answer_is_the_metric_and_the_others_history() -> None:
    """Of several new samples the newest goes to `metric`, those before it to `history`, oldest first."""
    batch = StoredSamples().poll([sample(7), sample(5), sample(6)])
    assert published(batch) == [("history", 5, None), ("history", 6, None), ("metric", 7, None)]


def test_repeated_sample_is_silent() -> None:
    """However often the API repeats a sample, it goes out once."""
    stored = StoredSamples()
    stored.poll([sample(5), sample(6)])
    assert published(stored.poll([sample(5), sample(6)])) == []
    assert published(stored.poll([sample(6)])) == []


def test_sample_twice_in_one_answer_goes_out_once() -> None:
    """Also when a slow server shows the same sample on two pages of one answer."""
    assert published(StoredSamples().poll([sample(5), sample(6), sample(5), sample(6)])) == [
        ("history", 5, None),
        ("metric", 6, None),
    ]


def test_late_sample_goes_to_history_alone() -> None:
    """A sample older than the newest goes to `history`, and the metric stays."""
    stored = StoredSamples()
    stored.poll([sample(10)])
    assert published(stored.poll([sample(5)])) == [("history", 5, None)]


def test_correction_goes_to_history_and_while_newest_to_metric() -> None:
    """Other values for the same time are marked; the metric has them too while it is the newest."""
    stored = StoredSamples()
    stored.poll([sample(5), sample(6)])
    assert published(stored.poll([sample(6, 2.0)])) == [("history", 6, True), ("metric", 6, True)]
    assert published(stored.poll([sample(5, 2.0)])) == [("history", 5, True)]
    assert published(stored.poll([sample(6, 2.0), sample(5, 2.0)])) == []


def test_correction_beside_a_newer_sample_is_history_alone() -> None:
    """A corrected sample that is not the newest of its answer does not touch the metric."""
    stored = StoredSamples()
    stored.poll([sample(5)])
    assert published(stored.poll([sample(5, 2.0), sample(6)])) == [("history", 5, True), ("metric", 6, None)]


def test_sample_of_a_removed_id_goes_to_history_alone() -> None:
    """What comes late for a removed terminal has no metric topic, and still goes out once."""
    stored = StoredSamples(removed=frozenset({"T"}))
    batch = stored.poll([sample(5), sample(6)])
    assert [what for what, _, _ in published(batch)] == ["history", "history"]
    assert [(newest.ts, newest.doc, newest.entry) for newest in batch.newest] == [(6, b"", None)]
    assert published(stored.poll([sample(5), sample(6)])) == []


def test_metric_of_an_id_that_is_back_does_not_go_behind_what_came_while_it_was_gone() -> None:
    """The newest sample known of a removed terminal stands in `history`; one before it follows it there."""
    stored = StoredSamples()
    stored.poll([sample(3)])
    stored.removed = frozenset({"T"})
    stored.poll([sample(5)])
    stored.removed = frozenset()
    assert published(stored.poll([sample(4)])) == [("history", 4, None)]
    assert published(stored.poll([sample(6)])) == [("metric", 6, None)]


def test_sample_of_a_removed_id_stays_known_behind_the_horizon() -> None:
    """Its newest sample is remembered however old it is, as that of any other id."""
    stored = StoredSamples(removed=frozenset({"T"}))
    stored.poll([sample(3), sample(5)])
    stored.horizon = 100
    stored.past["T"].seen = {5: stored.past["T"].hash}
    assert published(stored.poll([sample(5)])) == []


def test_sample_without_a_time_of_a_removed_id_goes_out_when_it_differs() -> None:
    """A measurement without a time is silent while its values stay, also when its terminal is gone."""
    stored = StoredSamples(removed=frozenset({"T"}))
    assert published(stored.poll([sample(None)], now=100)) == [("history", 100, None)]
    assert published(stored.poll([sample(None)], now=200)) == []
    assert published(stored.poll([sample(None, 2.0)], now=300)) == [("history", 300, None)]


def test_sample_older_than_the_horizon_is_known() -> None:
    """What is older than all that is remembered cannot be told from what went out, so it does not go out again."""
    stored = StoredSamples(horizon=100)
    stored.past["T"] = KnownSamples(500, 1, {500: 1})
    assert published(stored.poll([sample(99)])) == []
    assert published(stored.poll([sample(100)])) == [("history", 100, None)]


def test_first_sample_of_an_id_goes_out_at_any_age() -> None:
    """An id that was never seen shows its newest sample even when that is older than the horizon."""
    assert published(StoredSamples(horizon=100).poll([sample(5)])) == [("metric", 5, None)]


def test_sample_without_a_time_gets_the_polls_and_goes_out_when_it_differs() -> None:
    """A measurement without a time is stamped by the poll, and is silent while its values stay."""
    stored = StoredSamples()
    assert published(stored.poll([sample(None)], now=100)) == [("metric", 100, None)]
    assert published(stored.poll([sample(None)], now=200)) == []
    assert published(stored.poll([sample(None, 2.0)], now=300)) == [("metric", 300, None)]
    assert published(stored.poll([sample(None)], now=400)) == [("metric", 400, None)]


# --- the promise, over any story ------------------------------------------------------------------

ANSWERS = st.lists(
    st.dictionaries(
        st.tuples(st.sampled_from(["A", "B"]), st.integers(1, 8)), st.sampled_from([1.0, 2.0, 3.0]), max_size=6
    ).flatmap(lambda shown: st.permutations([sample(ts, value, id) for (id, ts), value in shown.items()])),
    max_size=8,
)


@hypothesis.settings(max_examples=200)
@given(ANSWERS, st.integers(1, 4))
def test_every_sample_goes_out_exactly_once(answers: list[list[Sample]], slice_: int) -> None:
    """`metric` and `history` together are every sample that was shown and each change of one, once, in any order."""
    stored = StoredSamples()
    shown: dict[tuple[str, int | None], list[object]] = defaultdict(list)
    for answer in answers:
        stored.poll(answer, slice_)
        for s in sorted(answer, key=lambda s: (s.ts or 0, s.id)):
            if shown[s.id, s.ts][-1:] != [s.values["sinr_db"]]:
                shown[s.id, s.ts].append(s.values["sinr_db"])
    published: dict[tuple[str, int | None], list[object]] = defaultdict(list)
    for entry in stored.entries:
        body = json.loads(entry.body)
        if entry.what == "history" or "corrected" not in body:
            published[entry.id, entry.ts].append(body["sinr_db"])
            assert bool(body.get("corrected")) is (len(published[entry.id, entry.ts]) > 1)
    assert {key: values for key, values in shown.items() if values} == published


@hypothesis.settings(max_examples=200)
@given(ANSWERS, st.integers(1, 4))
def test_metric_never_goes_back_and_ends_with_the_newest(answers: list[list[Sample]], slice_: int) -> None:
    """The times on a metric topic only grow, and its last message is the newest sample with its last values."""
    stored = StoredSamples()
    newest: dict[str, tuple[int, object]] = {}
    for answer in answers:
        stored.poll(answer, slice_)
        for s in sorted(answer, key=lambda s: (s.ts or 0, s.id)):
            if (s.ts or 0) >= newest.get(s.id, (0, 0))[0]:
                newest[s.id] = (s.ts or 0, s.values["sinr_db"])
    metric: dict[str, tuple[int, float]] = {}
    for entry in stored.entries:
        if entry.what == "metric":
            assert entry.ts >= metric.get(entry.id, (0, 0))[0]
            metric[entry.id] = (entry.ts, json.loads(entry.body)["sinr_db"])
    assert metric == newest
    assert {id: past.ts for id, past in stored.past.items()} == {id: ts for id, (ts, _) in newest.items()}


@hypothesis.settings(max_examples=200)
@given(ANSWERS)
def test_stored_newest_is_the_message_of_the_metric(answers: list[list[Sample]]) -> None:
    """What is stored to be restored is, byte for byte, what went to the metric topic by the entry it names."""
    stored = StoredSamples()
    for answer in answers:
        batch = stored.poll(answer, 2)
        for newest in batch.newest:
            assert newest.entry is not None
            entry = batch.entries[newest.entry]
            assert (entry.what, entry.id, entry.name, entry.body) == ("metric", newest.id, newest.report, newest.doc)


# --- presence -------------------------------------------------------------------------------------


def test_presence_is_when_a_terminal_was_seen() -> None:
    """A terminal's presence is a sample at the time it was last seen."""
    fields: dict[str, Any] = {
        "imei": "T",
        "name": "n",
        "first_seen": "2025-02-03T09:41:12Z",
        "last_seen": "2025-06-17T13:40:07Z",
    }
    presence = presence_of(DecodedRecord("terminal", "T", fields))
    assert presence is not None
    assert json.loads(samples.sample_payload(presence, "terminal", presence.ts or 0)) == {
        "imei": "T",
        "time": "2025-06-17T13:40:07.000Z",
        "ts": 1750167607000,
        "first_seen": "2025-02-03T09:41:12Z",
        "last_seen": "2025-06-17T13:40:07Z",
    }


@pytest.mark.parametrize("fields", [{}, {"first_seen": "2025-02-03T09:41:12Z"}])
def test_presence_of_one_never_seen_is_nothing(fields: Any) -> None:
    """Without a last-seen time there is no presence."""
    assert presence_of(DecodedRecord("terminal", "T", fields)) is None
