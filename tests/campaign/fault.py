"""A fault: a value with a name, the actor that is at fault, and how it begins and ends."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from tests.campaign.scene import Part, Setup

Hold = Callable[[Part], AbstractAsyncContextManager[None]]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """It is in force while the block of `hold` runs, alone or beside others."""

    name: str
    actor: str
    about: str
    hold: Hold
    setup: Setup = Setup()
    overtakes: bool = False
    """Whether it makes messages wait that others overtake: refused ones, or one blamed for a lost connection."""
    patience: float = 60.0
    """Seconds after its end within which all must be right."""
    cannot_meet: dict[str, str] = {}
    """Faults that cannot be in force in the same round, each with its reason."""
