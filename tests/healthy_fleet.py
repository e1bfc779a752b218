"""A healthy fleet of the simulator is polled over a simulated time, and tells nothing: no finding is a false alarm.

`python -m tests.healthy_fleet 10000 24` plays so many terminals for so many hours, and prints whatever was told.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from oneweb_bridge.api.errors import ApiError
from oneweb_bridge.decode.catalogue import CALLS
from tests.polls import Bench, bench

HOUR = 3600.0


async def messages_of(directory: Path, terminals: int, hours: float) -> list[str]:
    """Everything that is told of a fleet which lives as fleets do, while each call is polled at its own interval."""
    async with bench(directory, {"terminals": terminals, "liveliness": 1.0}) as b:
        messages, passed, due = list[str](), 0.0, dict.fromkeys(CALLS, 0.0)
        while (moment := min(due.values())) < hours * HOUR:
            await b.later(moment - passed)
            passed = moment
            for call in [call for call in CALLS if due[call] <= moment]:
                due[call] += CALLS[call].interval
                messages += [f"{passed / HOUR:.2f} h, {call}: {sentence}" for sentence in await _poll(b, call)]
        return messages


async def _poll(b: Bench, call: str) -> list[str]:
    try:
        outcome = await b.poll(call)
    except ApiError as error:
        return [str(error)]
    messages = [f"{alert.kind}: {alert.message}" for alert in outcome.alerts]
    return messages + [sentence for sentence in (outcome.incomplete, outcome.held) if sentence]


async def _main(terminals: int, hours: float) -> int:
    with tempfile.TemporaryDirectory() as directory:
        messages = await messages_of(Path(directory), terminals, hours)
    print("\n".join(messages) or f"{terminals} terminals over {hours:g} simulated hours: nothing told")
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2]))))
