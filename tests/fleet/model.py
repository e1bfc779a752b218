"""An exhaustive model of two workers and a lease: `python -m tests.fleet.model [DEPTH]` looks at every interleaving.

Time goes by in steps. A worker may claim, ask for a renewal and hear the answer, begin a transaction, commit it, stop
by its own clock, be paused between any two of these, and go on. It is worse than the product: it begins and commits
also when its own clock says that it must not. What a worker decides is the product's own code (`store.lease_rules`);
the server is a copy of the statements in `store.lease`, and a test compares the two.

Searched are a row that is written under an older epoch after a newer one wrote, a worker that acts for an instance
while another holds it, and a lease that has expired and cannot be taken over.
"""

import sys
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from oneweb_bridge.store.lease_rules import Lease, end_after_renewal, local_end
from oneweb_bridge.store.server import Fence

DEPTH = 12
LEASE = 4
"""Steps of time."""
NAMES = ("a", "b")
NEVER = 0
"""An end of time that has passed."""


class Server(msgspec.Struct, frozen=True):
    """The row of `oneweb.lease`; `left` are the steps until it expires."""

    holder: str = ""
    epoch: int = 0
    left: int = NEVER

    def claim(self, name: str) -> "Server | None":
        """The row after a claim; None where somebody holds it."""
        return Server(name, self.epoch + 1, LEASE) if self.left <= 0 else None

    def renew(self, name: str) -> "Server | None":
        """The row after a renewal; None where this worker does not hold it."""
        return replace(self, left=LEASE) if self.left > 0 and self.holder == name else None

    def give_up(self, fence: Fence) -> "Server":
        """The row after a holder gave it up."""
        return replace(self, left=NEVER) if self.passes(fence) else self

    def passes(self, fence: Fence) -> bool:
        """Whether a transaction may begin under a fence."""
        return self.left > 0 and (self.holder, self.epoch) == (fence.holder, fence.epoch)


class Worker(msgspec.Struct, frozen=True):
    """What one worker knows. Times are steps from now.

    `fence` is None while it holds nothing. `request_age` is how long ago it asked for a renewal, `answer` what came of
    it.
    `transaction` is the epoch under which one is open, 0 for none.
    """

    fence: Fence | None = None
    until: float = NEVER
    request_age: int | None = None
    answer: Lease | None = None
    is_answered: bool = False
    transaction: int = 0
    is_paused: bool = False


class State(msgspec.Struct, frozen=True):
    """A moment. `written` is the newest epoch that has written a row."""

    server: Server = Server()
    workers: tuple[Worker, Worker] = (Worker(), Worker())
    written: int = 0


class Rules(msgspec.Struct, frozen=True):
    """Which guards are in force: the check in each transaction, and the end of an old holder's sessions."""

    fenced: bool = True
    ends_sessions: bool = True


class Result(msgspec.Struct):
    """What a search found: states and steps that it looked at, and the first of each violation."""

    states: int = 0
    steps: int = 0
    stale_write: str = ""
    two_at_once: str = ""
    stuck: str = ""

    def __str__(self) -> str:
        """One line."""
        kinds = {"stale write": self.stale_write, "two at once": self.two_at_once, "stuck": self.stuck}
        violations = "; ".join(f"{name}: {path}" for name, path in kinds.items() if path) or "no violation"
        return f"{self.states} states, {self.steps} steps: {violations}"


def steps_of(state: State, rules: Rules) -> Iterator[tuple[str, State]]:
    """Every step that may come next, with its name."""
    yield "time", _later(state)
    for index, (name, worker) in enumerate(zip(NAMES, state.workers, strict=True)):
        if worker.is_paused:
            yield f"{name} goes on", _with(state, index, replace(worker, is_paused=False))
            continue
        yield f"{name} pauses", _with(state, index, replace(worker, is_paused=True))
        if worker.fence is None:
            yield from _claims(state, index, rules)
        else:
            yield from _renewals(state, index, worker, worker.fence)
            yield from _writes(state, index, worker, worker.fence, rules)


def _with(state: State, index: int, worker: Worker) -> State:
    first, second = state.workers
    return replace(state, workers=(worker, second) if index == 0 else (first, worker))


def _later(state: State) -> State:
    """One step of time later."""
    server = replace(state.server, left=max(NEVER, state.server.left - 1))
    first, second = (
        replace(
            worker,
            until=max(NEVER, worker.until - 1),
            request_age=None if worker.request_age is None else min(LEASE, worker.request_age + 1),
            answer=None if worker.answer is None else replace(worker.answer, until=max(NEVER, worker.answer.until - 1)),
        )
        for worker in state.workers
    )
    return State(server, (first, second), state.written)


def _claims(state: State, index: int, rules: Rules) -> Iterator[tuple[str, State]]:
    name, other = NAMES[index], state.workers[1 - index]
    server = state.server.claim(name)
    if server is None or is_blocked(state, index, rules):
        return
    if rules.ends_sessions:
        state = _with(state, 1 - index, replace(other, transaction=0))
    fence = Fence("main", name, server.epoch)
    yield f"{name} claims", replace(_with(state, index, Worker(fence, local_end(0, LEASE))), server=server)


def is_blocked(state: State, index: int, rules: Rules) -> bool:
    """Whether a transaction of the old holder, which holds the lease's key, keeps the other from claiming."""
    return rules.fenced and not rules.ends_sessions and state.workers[1 - index].transaction > 0


def _renewals(state: State, index: int, worker: Worker, fence: Fence) -> Iterator[tuple[str, State]]:
    name = NAMES[index]
    if worker.until <= 0:
        yield f"{name} stops by its clock", _with(state, index, Worker())
    if worker.request_age is None:
        yield f"{name} asks", _with(state, index, replace(worker, request_age=0))
    elif not worker.is_answered:
        server = state.server.renew(name)
        lease = None
        if server is not None:
            lease = Lease(Fence("main", name, server.epoch), max(NEVER, local_end(-worker.request_age, LEASE)))
        renewed = _with(state, index, replace(worker, answer=lease, is_answered=True))
        yield f"the server renews {name}", replace(renewed, server=server or state.server)
    else:
        until = end_after_renewal(fence, worker.answer)
        following = replace(worker, until=until or NEVER, request_age=None, answer=None, is_answered=False)
        yield f"{name} hears", _with(state, index, Worker() if until is None else following)


def _writes(state: State, index: int, worker: Worker, fence: Fence, rules: Rules) -> Iterator[tuple[str, State]]:
    name = NAMES[index]
    if worker.transaction:
        committed = _with(state, index, replace(worker, transaction=0))
        yield f"{name} commits {worker.transaction}", replace(committed, written=max(state.written, worker.transaction))
    elif not rules.fenced or state.server.passes(fence):
        yield f"{name} begins", _with(state, index, replace(worker, transaction=fence.epoch))
    else:
        yield f"{name} is refused", _with(state, index, Worker())


def search(depth: int = DEPTH, rules: Rules = Rules()) -> Result:  # noqa: B008 -- frozen
    """Looks at every state that is reached in so many steps."""
    result, start = Result(), State()
    paths, border = {start: ""}, [start]
    for _ in range(depth):
        following = []
        for state in border:
            for step, after in steps_of(state, rules):
                result.steps += 1
                path = f"{paths[state]}, {step}".removeprefix(", ")
                if _is_stale(state, step):
                    result.stale_write = result.stale_write or path
                if after not in paths:
                    paths[after] = path
                    following.append(after)
                    _judge(after, path, rules, result)
        border = following
    result.states = len(paths)
    return result


def _is_stale(state: State, step: str) -> bool:
    return " commits " in step and int(step.rsplit(maxsplit=1)[-1]) < state.written


def _judge(state: State, path: str, rules: Rules, result: Result) -> None:
    for index, worker in enumerate(state.workers):
        # As long as its own clock says so, a worker polls and publishes.
        if worker.fence is not None and worker.until > 0 and not state.server.passes(worker.fence):
            result.two_at_once = result.two_at_once or path
        can_claim = worker.fence is None and not worker.is_paused and state.server.left <= 0
        if can_claim and is_blocked(state, index, rules):
            result.stuck = result.stuck or path


def main(arguments: list[str]) -> int:
    """The exit code: 0 where the guards hold, and each is missed where it is taken away."""
    depth = int(arguments[0]) if arguments else DEPTH
    whole = search(depth)
    unfenced = search(depth, Rules(fenced=False))
    waiting = search(depth, Rules(ends_sessions=False))
    print(f"depth {depth}, with the fence: {whole}")
    print(f"without the check: {unfenced}")
    print(f"without ending the old sessions: {waiting}")
    is_safe = not (whole.stale_write or whole.two_at_once or whole.stuck)
    return 0 if is_safe and unfenced.stale_write and waiting.stuck else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
