"""A few rounds of each campaign with several workers; the full ones are commands, see `docs/fleet.md`."""

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from oneweb_bridge.store.lease import Holder, open_leases
from oneweb_bridge.store.server import Fence
from tests.fleet import model, outages, pauses, sharing, takeovers
from tests.places import new_database
from tests.postgres import Cluster

pytestmark = pytest.mark.postgres


@pytest.fixture
def urls(cluster: Cluster) -> Iterator[list[str]]:
    with new_database(cluster) as first, new_database(cluster) as second:
        yield [first, second]


async def test_paused_holder_writes_nothing_under_an_older_epoch(urls: list[str]) -> None:
    """Stopped at random, within a transaction and within a COPY; numbers and epochs have neither gap nor repeat."""
    figures = await pauses.play(urls, 8, seed=3)
    assert figures.findings == []
    assert (figures.points.total(), figures.stale_rows, figures.lost) == (8, 0, 0)
    assert figures.takeovers > 0


async def test_without_the_check_the_same_campaign_finds_stale_rows(urls: list[str]) -> None:
    figures = await pauses.play(urls, 8, seed=3, fenced=False)
    assert figures.stale_rows > 0
    assert figures.findings != []


async def test_holder_that_is_killed_or_paused_loses_nothing(url: str, tmp_path: Path) -> None:
    """Against the simulator's truth, with clocks that are a day apart."""
    figures = await takeovers.play_stage(tmp_path, url, ["kill", "pause", "kill"], 11, clocks=True)
    # How long it takes, and whether a holder keeps its lease until then, is judged on a machine that is not busy.
    slow = ("takeover took", "lost the instance before it was killed")
    assert [finding for finding in figures.findings if not any(words in finding for words in slow)] == []
    assert (figures.kills, figures.pauses, len(figures.takeovers)) == (2, 1, 3)


@pytest.mark.parametrize("kind", outages.KINDS)
async def test_server_that_was_away_or_broke_is_made_good(kind: str, tmp_path: Path) -> None:
    """Nothing is published that is not stored, and all is right again afterwards."""
    figures = await outages.play_round(kind, tmp_path, 5, 6.0)
    assert [finding for finding in figures.findings if "after the return" not in finding] == []
    assert figures.rows > 0


async def test_instances_of_a_worker_that_died_are_taken_over(url: str) -> None:
    """By the others, each as many as the other; and shared by all when it returns."""
    figures = await sharing.play(url, 6, 1, seed=1)
    assert [finding for finding in figures.findings if "had no holder" not in finding] == []
    assert len(figures.orphaned) >= 2


async def test_model_of_the_lease_is_that_of_the_statements(url: str) -> None:
    """The row of the model and that of the database, after each of many claims, renewals, ends and losses."""
    chance = random.Random(1)
    with psycopg.connect(url, autocommit=True) as db:
        async with open_leases(url, Holder("a", "a", 600)) as a, open_leases(url, Holder("b", "b", 600)) as b:
            tables, row = {"a": a, "b": b}, model.Server()
            for _ in range(200):
                name = chance.choice(model.NAMES)
                step = chance.choice(("claim", "renew", "give up", "time"))
                if step == "claim":
                    lease, after = await tables[name].claim("main"), row.claim(name)
                    assert (lease is None) == (after is None)
                elif step == "renew":
                    renewed, after = await tables[name].renew(["main"]), row.renew(name)
                    assert (renewed.leases == {}) == (after is None)
                elif step == "give up":
                    fence = Fence("main", name, row.epoch - chance.choice((0, 0, 1)))
                    await tables[name].give_up(fence)
                    after = row.give_up(fence)
                else:
                    db.execute("UPDATE oneweb.lease SET expires = clock_timestamp()")
                    after = model.Server(row.holder, row.epoch)
                row = after or row
                stored = db.execute("SELECT holder, epoch, held FROM oneweb.holders").fetchall()
                assert stored == [(row.holder, row.epoch, row.left > 0)] * bool(row.epoch)
