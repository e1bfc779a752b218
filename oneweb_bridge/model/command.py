"""A command as it came in, from whatever side, and the way back to whoever sent it."""

from collections.abc import Callable
from typing import Literal

import msgspec

from oneweb_bridge.model.status import Response, Result

Answer = Callable[[Result | Response], None]
"""Sends an answer to where the command came from; does nothing where that is gone."""


CommandSource = Literal["mqtt", "console", "sparkplug"]
"""Where a command comes from; it is stored with the settings that it makes."""


class CommandRefusal(msgspec.Struct, frozen=True):
    """Why a command is not executed: what the sender did wrong, or what stands against it now; and in a sentence."""

    reason: Literal["invalid", "unknown_call", "over_budget", "busy"]
    error: str


def _discard(_: Result | Response) -> None:
    """Where nobody waits for an answer."""


class CommandMessage(msgspec.Struct, frozen=True):
    """A message on a command topic, or its like from elsewhere.

    `follows_retained`: its topic has had a retained message on this connection before, so this one was sent just now
    and is not what the broker had kept. `reply_problem` says why the answer cannot go where the sender asked for it.
    `reply_bytes` is how many bytes its sender chose beside topic and payload.
    """

    topic: str
    payload: bytes
    retain: bool
    answer: Answer = _discard
    follows_retained: bool = False
    reply_problem: str | None = None
    reply_bytes: int = 0
    source: CommandSource = "mqtt"

    @property
    def size(self) -> int:
        """About how many bytes it holds that its sender chose."""
        return len(self.topic) + len(self.payload) + self.reply_bytes
