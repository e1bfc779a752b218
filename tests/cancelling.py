"""Ends tasks of the bridge within a test."""

import asyncio
from collections.abc import Awaitable
from typing import Any

REPEAT_S = 6.0
"""More than the goodbye of a connection may take."""


async def cancel_until_done(*tasks: "asyncio.Task[Any]") -> None:
    """Cancels tasks until they have ended, and keeps how they ended for who awaits them.

    On Python 3.11 a task group forgets that it was cancelled when one of its tasks fails just then; the command repeats
    its signal for the same reason. A test that cancels once waits for ever.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=REPEAT_S)


async def end_tasks(*tasks: "asyncio.Task[Any]") -> list[Any]:
    """Ends tasks, whatever they end with: their results or exceptions."""
    await cancel_until_done(*tasks)
    ends: Awaitable[list[Any]] = asyncio.gather(*tasks, return_exceptions=True)
    return await ends
