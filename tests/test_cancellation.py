"""Whatever is cancelled, at whatever moment: each transaction of each writer is there as a whole or not at all."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from oneweb_bridge.model.records import Batch, RecordWrite
from oneweb_bridge.store import announcements, journal, places, store
from oneweb_bridge.store.commands import Setting
from oneweb_bridge.store.places import Place

Work = Callable[[int], Coroutine[Any, Any, Any]]


async def cancelled_at_random(work: Work, turns: int, seed: int) -> set[int]:
    """Starts three at a time and cancels some of them somewhere. Returns those that came to their end."""
    chance, done = random.Random(seed), set[int]()

    async def run_work(number: int) -> None:
        await work(number)
        done.add(number)

    for turn in range(turns):
        tasks = [asyncio.create_task(run_work(turn * 3 + i)) for i in range(3)]
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0 if chance.random() < 0.7 else chance.random() * 0.0006)
        for task in chance.sample(tasks, chance.randrange(4)):
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        # Who was not cancelled must not feel it.
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
    await run_work(turns * 3)
    return done


def read(place: Place, sql: str) -> list[Any]:
    with places.open_reader(place) as db:
        return db.execute(sql).fetchall()


async def test_cancelled_settings_come_with_their_mark(place: Place) -> None:
    """A setting and the memory of the command that set it are there both or neither."""
    async with store.open_store(place) as db:

        async def change(number: int) -> None:
            call = f"c{number}"
            settings = [Setting(call, name, "1", "mqtt") for name in ("interval", "enabled")]
            await db.commands.store_command(settings, (call, "mark"))

        done = await cancelled_at_random(change, 80, 1)
    marked = {row[0] for row in read(place, "SELECT topic FROM command")}
    rows = read(place, "SELECT call, count(*) FROM setting GROUP BY call")
    assert dict(rows) == dict.fromkeys(marked, 2)
    assert {f"c{number}" for number in done} <= marked


async def test_cancelled_advances_never_go_back(place: Place) -> None:
    """The cursor is at least where the last finished write has put it, and at most where one was asked for."""
    async with store.open_store(place), journal.open_journal(place, "mqtt") as rows:
        seen: list[int] = []

        async def advance(number: int) -> None:
            await rows.advance(number)
            seen.append(await rows.cursor())
            assert seen[-1] >= number

        done = await cancelled_at_random(advance, 100, 2)
        assert seen == sorted(seen)
        assert await rows.cursor() == max(done)


async def test_cancelled_devices_are_marked_as_a_whole(place: Place) -> None:
    """All devices are marked together with the settings under which they were, or none."""
    async with store.open_store(place) as db, announcements.open_devices(place, db.steady.now) as known:
        await db.commit(Batch(writes=[RecordWrite("terminal", f"t{n}", b"{}") for n in range(5)]))

        async def mark(number: int) -> None:
            await known.mark_all_dirty(str(number), [("bridge", "")])

        await cancelled_at_random(mark, 80, 3)
        assert await known.fingerprint() == "240"
    ((bridge,),) = read(place, "SELECT mark FROM discovery WHERE kind = 'bridge'")
    # A marking marks the bridge's own device twice, and makes or marks each terminal once.
    assert read(place, "SELECT mark FROM discovery WHERE kind = 'terminal'") == [(bridge // 2,)] * 5


async def test_cancelled_count_missing_counts_all_or_none(place: Place) -> None:
    """All records of a listing are counted as missing, or none."""
    async with store.open_store(place) as db:
        ids = [f"s{n}" for n in range(5)]
        await db.commit(Batch(writes=[RecordWrite("site", id, b"{}") for id in ids]))

        async def miss(number: int) -> None:
            await db.records.count_missing("site", ids, number)

        done = await cancelled_at_random(miss, 80, 4)
    counts = {row[0] for row in read(place, "SELECT missing FROM record")}
    assert len(counts) == 1
    assert counts.pop() >= len(done)
