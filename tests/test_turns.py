"""Who polls next: at most so many at once, wishes first, and nobody is lost when somebody gives up."""

import asyncio
import contextlib
import random

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.api.turns import Turns


async def settle() -> None:
    """Lets every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Queue:
    """Holders that write down when they get their turn, and keep it until they are told."""

    def __init__(self, places: int) -> None:
        self.turns = Turns(places)
        self.begun: list[str] = []
        self.holding: set[str] = set()
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _hold(self, name: str, *, hurry: bool) -> None:
        async with self.turns.turn(name, hurry=hurry):
            self.begun.append(name)
            self.holding.add(name)
            try:
                await self.leave[name].wait()
            finally:
                self.holding.discard(name)

    def come(self, name: str, *, hurry: bool = False) -> None:
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, hurry=hurry))

    async def end(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_turns_go_in_order_with_wishes_first() -> None:
    """Those that hurry go before those that do not, and among equals the first goes first."""
    queue = Queue(1)
    queue.come("holder")
    await settle()
    for name in ("a", "b"):
        queue.come(name)
    for name in ("wish 1", "wish 2"):
        queue.come(name, hurry=True)
    await settle()
    for name in ("holder", "wish 1", "wish 2", "a", "b"):
        assert queue.holding == {name}
        queue.leave[name].set()
        await settle()
    assert queue.begun == ["holder", "wish 1", "wish 2", "a", "b"]


async def test_turns_are_held_by_at_most_so_many() -> None:
    """Of three that come to two places, one waits."""
    queue = Queue(2)
    for name in ("a", "b", "c"):
        queue.come(name)
    await settle()
    assert queue.holding == {"a", "b"}
    queue.leave["b"].set()
    await settle()
    assert queue.holding == {"a", "c"}
    await queue.end()


async def test_waiting_turn_that_is_asked_for_goes_first() -> None:
    """Who waits already and is asked for goes before all that do not hurry, behind those that did before, and once."""
    queue = Queue(1)
    queue.come("holder")
    await settle()
    for name in ("a", "b", "c"):
        queue.come(name)
    queue.come("wish", hurry=True)
    await settle()
    for name in ("c", "c", "nobody", "holder"):
        queue.turns.hurry(name)
    for name in ("holder", "wish", "c", "a", "b"):
        await settle()
        assert queue.holding == {name}
        queue.leave[name].set()
    await settle()
    assert queue.begun == ["holder", "wish", "c", "a", "b"]


async def test_turns_are_more_or_fewer_after_a_resize() -> None:
    """More places let in who waits; fewer let nobody in until so many have left, and those who hold stay."""
    queue = Queue(1)
    for name in ("a", "b", "c", "d"):
        queue.come(name)
    await settle()
    queue.turns.resize(3)
    await settle()
    assert queue.holding == {"a", "b", "c"}
    queue.turns.resize(1)
    for name, holding in (("a", {"b", "c"}), ("b", {"c"}), ("c", {"d"})):
        queue.leave[name].set()
        await settle()
        assert queue.holding == holding
    await queue.end()


async def test_turn_is_given_back_after_an_error() -> None:
    """A holder that fails gives its place back."""
    turns = Turns(1)
    with contextlib.suppress(ValueError):
        async with turns.turn("failing"):
            raise ValueError
    async with asyncio.timeout(5), turns.turn("next"):
        pass


async def test_place_given_to_a_cancelled_waiter_goes_on() -> None:
    """A waiter that is cancelled in the very moment it gets its place hands it on."""
    queue = Queue(1)
    for name in ("holder", "a", "b"):
        queue.come(name)
        await settle()
    queue.leave["holder"].set()
    await asyncio.sleep(0)
    queue.tasks["a"].cancel()
    await settle()
    assert queue.holding == {"b"}
    await queue.end()


@hypothesis.settings(max_examples=100)
@given(
    st.integers(1, 3),
    st.integers(0, 2**32),
    st.lists(st.sampled_from(["come", "hurry", "ask", "leave", "cancel", "step"]), max_size=60),
)
def test_no_place_is_lost_or_made(places: int, seed: int, steps: list[str]) -> None:
    """Whoever comes, leaves or gives up, never more hold than there are places, and none stays free while one waits."""

    async def tell() -> None:
        queue, chance = Queue(places), random.Random(seed)
        for number, step in enumerate(steps):
            if step in ("come", "hurry"):
                queue.come(str(number), hurry=step == "hurry")
            elif step == "ask" and queue.tasks:
                queue.turns.hurry(chance.choice(sorted(queue.tasks)))
            elif step == "leave" and queue.holding:
                queue.leave[chance.choice(sorted(queue.holding))].set()
            elif step == "cancel" and queue.tasks:
                queue.tasks[chance.choice(sorted(queue.tasks))].cancel()
            elif step == "step":
                await asyncio.sleep(0)
            assert len(queue.holding) <= places
        await settle()
        waiting = [name for name, task in queue.tasks.items() if not task.done() and name not in queue.holding]
        assert len(queue.holding) == places or not waiting
        await queue.end()
        for number in range(places):
            await queue.turns._take(f"last {number}", hurry=False)

    asyncio.run(asyncio.wait_for(tell(), 20))
