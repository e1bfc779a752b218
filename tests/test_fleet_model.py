"""The exhaustive model of two workers and a lease, and what a worker decides by itself."""

import pytest

from oneweb_bridge.store.lease_rules import (
    Lease,
    choose_to_give_up,
    count_to_give_up,
    end_after_renewal,
    is_left_over,
    local_end,
    pause_until_look,
    share_of,
)
from oneweb_bridge.store.server import Fence
from tests.fleet import model
from tests.fleet.watching import count_stale


def test_no_interleaving_writes_under_an_older_epoch() -> None:
    """To depth 12: no stale write, no two that act at once, and no lease that cannot be taken over."""
    result = model.search(12)
    assert (result.stale_write, result.two_at_once, result.stuck) == ("", "", "")
    assert result.states > 5000
    assert str(result).endswith("no violation")


def test_without_the_check_a_stale_write_is_found() -> None:
    result = model.search(12, model.Rules(fenced=False))
    assert "b commits 2, a commits 1" in result.stale_write


def test_without_ending_old_sessions_a_takeover_waits() -> None:
    """The check holds the lease's key, and a worker that stands still in a transaction holds it for ever."""
    result = model.search(12, model.Rules(ends_sessions=False))
    assert result.stale_write == ""
    assert "begins" in result.stuck


def test_worker_that_stops_too_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own clock must end before the lease does, counted from before it asked."""
    assert local_end(100.0, 8.0) == 106.0
    monkeypatch.setattr(model, "local_end", lambda asked_at, lease: asked_at + 1.5 * lease)
    assert model.search(8).two_at_once


def test_renewal_under_another_epoch_ends_what_runs() -> None:
    """It is of a lease that was taken again since."""
    fence = Fence("main", "h", 3)
    assert end_after_renewal(fence, Lease(fence, 7.0)) == 7.0
    assert end_after_renewal(fence, Lease(Fence("main", "h", 4), 7.0)) is None
    assert end_after_renewal(fence, None) is None


@pytest.mark.parametrize(("instances", "workers", "share"), [(30, 3, 10), (30, 4, 8), (1, 3, 1), (5, 0, 5)])
def test_share_is_rounded_up(instances: int, workers: int, share: int) -> None:
    assert share_of(instances, workers) == share


@pytest.mark.parametrize(("held", "share", "count"), [(10, 10, 0), (3, 10, 0), (11, 10, 1), (15, 10, 2), (30, 10, 7)])
def test_excess_is_given_up_bit_by_bit(held: int, share: int, count: int) -> None:
    assert count_to_give_up(held, share) == count


def test_only_what_others_would_take_is_given_up() -> None:
    """The newest first; what is held beyond the share because nobody else would take it has a holder."""
    held = ["i0", "i1", "i2", "i3"]
    assert choose_to_give_up(held, held, 3) == ["i3"]
    assert choose_to_give_up(held, ["i0", "i1"], 3) == ["i1"]
    assert choose_to_give_up(held, ["other"], 3) == []
    assert choose_to_give_up(held, held, 4) == []


def test_free_instance_is_left_over_after_a_lease() -> None:
    assert not is_left_over(10.0, 12.0, 2.0)
    assert is_left_over(10.0, 12.1, 2.0)


@pytest.mark.parametrize(("left", "pause"), [(0.0, 1.0), (0.3, 0.31), (5.0, 1.0)])
def test_expiring_lease_is_looked_at_just_after_its_end(left: float, pause: float) -> None:
    assert pause_until_look(left, 1.0) == pytest.approx(pause)


def test_rows_of_an_older_epoch_are_counted() -> None:
    assert count_stale([1, 1, 2, 1, 2, 3, 2, 2]) == 3
