"""The answers to commands that no broker has acknowledged yet. Pure, but for the clock.

An answer is sent on the connection that there is. Where there is none, or it breaks before the broker has acknowledged
the answer, the next connection sends it.
"""

import time
from collections.abc import Sequence

import msgspec

from oneweb_bridge.model.records import Message

MAX_ANSWERS = 100
"""Answers that wait; of more the oldest are dropped."""
ANSWER_WAIT_S = 600.0
"""Seconds for which an answer waits: after that nobody looks for it."""


class WaitingAnswer(msgspec.Struct, eq=False):
    """An answer since a monotonic time, and its messages that are not acknowledged."""

    since: float
    messages: list[Message]


class WaitingAnswers:
    """All of one process, oldest first."""

    def __init__(self) -> None:
        self._answers: list[WaitingAnswer] = []

    def add(self, messages: Sequence[Message]) -> WaitingAnswer:
        """An answer that waits from now on until each of its messages has ended."""
        answer = WaitingAnswer(time.monotonic(), list(messages))
        self._answers = [*self._answers[-MAX_ANSWERS + 1 :], answer]
        return answer

    def end(self, answer: WaitingAnswer, message: Message) -> None:
        """A message of an answer was acknowledged or refused, or cannot be sent: it is not sent again."""
        answer.messages = [other for other in answer.messages if other is not message]
        if not answer.messages:
            self._answers = [other for other in self._answers if other is not answer]

    def to_send(self) -> Sequence[WaitingAnswer]:
        """What a new connection has to send. What waits for too long is dropped."""
        begin = time.monotonic() - ANSWER_WAIT_S
        self._answers = [answer for answer in self._answers if answer.since >= begin]
        return tuple(self._answers)
