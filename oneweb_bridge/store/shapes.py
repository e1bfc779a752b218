"""The table `answer_shape`: what is remembered of the shape of each call's answers; names and types, no values."""

import msgspec

from oneweb_bridge.decode.answer_shape import AnswerShape
from oneweb_bridge.store.connections import Connections


class AnswerShapes:
    """The shapes of all calls."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def load(self, call: str, now: int) -> AnswerShape:
        """The shape of a call's answers; of one that was never polled an empty one that begins `now`, in steady ms."""
        rows = await self._connections.rows("SELECT shape FROM answer_shape WHERE call = ?", (call,))
        return msgspec.json.decode(rows[0][0], type=AnswerShape) if rows else AnswerShape(now)

    async def save(self, call: str, shape: AnswerShape) -> None:
        """Stores the shape of a call's answers."""
        doc = msgspec.json.encode(shape).decode()
        async with self._connections.transaction() as transaction:
            await transaction.execute(
                """INSERT INTO answer_shape (call, shape) VALUES (?, ?)
                   ON CONFLICT (call) DO UPDATE SET shape = excluded.shape""",
                (call, doc),
            )
