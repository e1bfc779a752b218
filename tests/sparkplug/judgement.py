"""What a rule says of a trace, and the usual shape of a rule. Pure."""

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import msgspec

from tests.sparkplug.facts import Facts

Result = Literal["pass", "fail", "not seen"]


class Judgement(msgspec.Struct, frozen=True):
    """A statement's result; `why` says what fails, or why there was nothing to see."""

    result: Result
    why: str = ""


Rule = Callable[[Facts], Judgement]
Item = TypeVar("Item")
PASS = Judgement("pass")


def each(
    select: Callable[[Facts], Iterable[Item]], judge: Callable[[Item], str], nothing: str = "nothing of the kind came"
) -> Rule:
    """A rule for every one of some things: `judge` gives what is wrong with one, or an empty text."""

    def rule(facts: Facts) -> Judgement:
        seen = False
        for item in select(facts):
            seen = True
            if wrong := judge(item):
                return Judgement("fail", wrong)
        return PASS if seen else Judgement("not seen", nothing)

    return rule


def findings(find: Callable[[Facts], Iterable[str]], nothing: str = "nothing of the kind came") -> Rule:
    """A rule that yields a text for each thing that it looked at: empty when that is right, else what is wrong."""
    return each(find, lambda wrong: wrong, nothing)
