"""The simulator as an object: its story, its faults, and what can be asked of it from outside."""

from collections import Counter, deque
from typing import Any

import msgspec

from .answer import SimulatedRequest
from .api import Api
from .auth import Gate, Quota
from .clock import rfc3339
from .directing import Directions
from .faults import STORY, Fault, Faults
from .ledger import Ledger
from .options import Options
from .world import World

Json = dict[str, Any]


class Simulator:
    """A simulated API. Its methods do what the control endpoint does; ValueError if they cannot."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.world = World(options)
        self.api = Api(self.world)
        self.gate = Gate(options)
        self.quota = Quota(options.rate_limit, options.rate_window)
        self.faults = Faults()
        self.ledger = Ledger(options.ledger)
        self.port = options.port
        self._directions = Directions(self.world)
        self._counts: Counter[str] = Counter()
        self._last: deque[Json] = deque(maxlen=100)

    @property
    def url(self) -> str:
        """`http://host:port`, once it listens."""
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return f"http://{host}:{self.port}"

    def fault(self, kind: str, **details: Any) -> None:
        """Let something go wrong: the members of `Fault`."""
        fault = _converted({"kind": kind, **details})
        if fault.kind == "expire_tokens":
            self.gate.expire_tokens()
        elif fault.kind in STORY:
            self._directions.turn(fault)
        else:
            self.faults.add(fault)

    def clear_faults(self) -> None:
        """Forget all faults that are waiting; what happened to the story has happened."""
        self.faults.clear()

    def fleet(self, op: str, **details: Any) -> Json:
        """Change the fleet; tells the ids that are concerned and the simulated time."""
        return {"ids": self._directions.obey(op, details), "at": rfc3339(self.world.clock.now())}

    def freeze(self, on: bool = True) -> Json:
        """Stop or resume the story's own life."""
        self.world.changes.freeze(on, self.world.clock.now())
        return self.time()

    def advance(self, seconds: float) -> Json:
        """Jump ahead in simulated time."""
        if not 0 <= seconds < 1e10:
            raise ValueError("advance must be a number of seconds, 0 or more.")
        self.world.clock.advance(seconds)
        return self.time()

    def time(self) -> Json:
        """The simulated time."""
        now = self.world.clock.now()
        frozen = self.world.changes.is_frozen()
        return {"now": rfc3339(now), "epoch": now, "speed": self.options.speed, "frozen": frozen}

    def truth(self, kind: str, begin: int = 0, end: int | None = None, at: float | None = None) -> list[Json]:
        """All objects of a kind, or a stretch of them, as a complete answer shows them."""
        collection = self.world.collections.get(kind)
        if collection is None:
            raise ValueError(f"kind must be one of {', '.join(self.world.collections)}.")
        moment = self.world.clock.now() if at is None else at
        return collection.slice(begin, len(collection.members(moment)) if end is None else end, moment)

    def requests(self) -> Json:
        """How often each path was asked for, and the last 100 requests without their credentials."""
        return {"counts": dict(self._counts), "total": self._counts.total(), "last": list(self._last)}

    def note(self, request: SimulatedRequest, status: int) -> None:
        """Remember a request; status 0 is one that was never answered."""
        query = {name: value for name, value in request.query.items() if "secret" not in name and "token" not in name}
        self._counts[request.path] += 1
        self._last.append({"method": request.method, "path": request.path, "query": query, "status": status})


def _converted(members: Json) -> Fault:
    try:
        return msgspec.convert(members, Fault)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}.") from None
