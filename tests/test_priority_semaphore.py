"""Never more holders than permits, urgent waiters first, and no permit lost by a cancellation."""

import asyncio
import contextlib
import random

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.api.priority_semaphore import PrioritySemaphore


async def let_tasks_run() -> None:
    """Lets every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Queue:
    """Holders that write down when they get a permit, and keep it until they are told."""

    def __init__(self, permits: int) -> None:
        self.permits = PrioritySemaphore(permits)
        self.started: list[str] = []
        self.holding: set[str] = set()
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _hold(self, name: str, *, urgent: bool) -> None:
        async with self.permits.acquire(name, urgent=urgent):
            self.started.append(name)
            self.holding.add(name)
            try:
                await self.leave[name].wait()
            finally:
                self.holding.discard(name)

    def come(self, name: str, *, urgent: bool = False) -> None:
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, urgent=urgent))

    async def end(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_urgent_waiters_go_first_and_equals_in_order() -> None:
    """Urgent waiters go before the others, and among equals the first goes first."""
    queue = Queue(1)
    queue.come("holder")
    await let_tasks_run()
    for name in ("a", "b"):
        queue.come(name)
    for name in ("urgent 1", "urgent 2"):
        queue.come(name, urgent=True)
    await let_tasks_run()
    for name in ("holder", "urgent 1", "urgent 2", "a", "b"):
        assert queue.holding == {name}
        queue.leave[name].set()
        await let_tasks_run()
    assert queue.started == ["holder", "urgent 1", "urgent 2", "a", "b"]


async def test_never_more_holders_than_permits() -> None:
    """Of three that want one of two permits, one waits."""
    queue = Queue(2)
    for name in ("a", "b", "c"):
        queue.come(name)
    await let_tasks_run()
    assert queue.holding == {"a", "b"}
    queue.leave["b"].set()
    await let_tasks_run()
    assert queue.holding == {"a", "c"}
    await queue.end()


async def test_waiter_made_urgent_goes_before_the_others() -> None:
    """A waiter made urgent goes before all that are not, behind those that were urgent before, and once."""
    queue = Queue(1)
    queue.come("holder")
    await let_tasks_run()
    for name in ("a", "b", "c"):
        queue.come(name)
    queue.come("urgent", urgent=True)
    await let_tasks_run()
    for name in ("c", "c", "nobody", "holder"):
        queue.permits.make_urgent(name)
    for name in ("holder", "urgent", "c", "a", "b"):
        await let_tasks_run()
        assert queue.holding == {name}
        queue.leave[name].set()
    await let_tasks_run()
    assert queue.started == ["holder", "urgent", "c", "a", "b"]


async def test_resize_gives_more_or_fewer_permits() -> None:
    """More permits admit who waits; fewer admit nobody until enough holders have left, and those stay."""
    queue = Queue(1)
    for name in ("a", "b", "c", "d"):
        queue.come(name)
    await let_tasks_run()
    queue.permits.resize(3)
    await let_tasks_run()
    assert queue.holding == {"a", "b", "c"}
    queue.permits.resize(1)
    for name, holding in (("a", {"b", "c"}), ("b", {"c"}), ("c", {"d"})):
        queue.leave[name].set()
        await let_tasks_run()
        assert queue.holding == holding
    await queue.end()


async def test_permit_is_released_after_an_error() -> None:
    """A holder that fails releases its permit."""
    permits = PrioritySemaphore(1)
    with contextlib.suppress(ValueError):
        async with permits.acquire("failing"):
            raise ValueError
    async with asyncio.timeout(5), permits.acquire("next"):
        pass


async def test_permit_of_a_cancelled_waiter_goes_to_the_next() -> None:
    """A waiter that is cancelled in the very moment it gets its permit hands it on."""
    queue = Queue(1)
    for name in ("holder", "a", "b"):
        queue.come(name)
        await let_tasks_run()
    queue.leave["holder"].set()
    await asyncio.sleep(0)
    queue.tasks["a"].cancel()
    await let_tasks_run()
    assert queue.holding == {"b"}
    await queue.end()


@hypothesis.settings(max_examples=100)
@given(
    st.integers(1, 3),
    st.integers(0, 2**32),
    st.lists(st.sampled_from(["come", "urgent", "ask", "leave", "cancel", "step"]), max_size=60),
)
def test_permits_are_neither_lost_nor_duplicated(permits: int, seed: int, steps: list[str]) -> None:
    """Whatever comes, leaves or is cancelled: never more holders than permits, and none is free while one waits."""

    async def run_steps() -> None:
        queue, chance = Queue(permits), random.Random(seed)
        for number, step in enumerate(steps):
            if step in ("come", "urgent"):
                queue.come(str(number), urgent=step == "urgent")
            elif step == "ask" and queue.tasks:
                queue.permits.make_urgent(chance.choice(sorted(queue.tasks)))
            elif step == "leave" and queue.holding:
                queue.leave[chance.choice(sorted(queue.holding))].set()
            elif step == "cancel" and queue.tasks:
                queue.tasks[chance.choice(sorted(queue.tasks))].cancel()
            elif step == "step":
                await asyncio.sleep(0)
            assert len(queue.holding) <= permits
        await let_tasks_run()
        waiting = [name for name, task in queue.tasks.items() if not task.done() and name not in queue.holding]
        assert len(queue.holding) == permits or not waiting
        await queue.end()
        for number in range(permits):
            await queue.permits._acquire(f"last {number}", urgent=False)

    asyncio.run(asyncio.wait_for(run_steps(), 20))
