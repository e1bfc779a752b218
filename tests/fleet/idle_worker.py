"""A worker whose bridges do nothing: `python -m tests.fleet.idle_worker run -c DIR`. All else is the real command.

So many instances fit onto a small machine: files, leases, shares, health endpoints and signals are real.
"""

import asyncio
import sys
from typing import Any

from oneweb_bridge import app
from oneweb_bridge.cli import main as cli
from oneweb_bridge.config.schema import Config


async def _run_nothing(config: Config, **named: Any) -> None:
    """In the place of `app.run`, which is called with the same."""
    assert named["holding"] is not None, config.instance
    await asyncio.Event().wait()


if __name__ == "__main__":
    assert asyncio.iscoroutinefunction(app.run)
    app.run = _run_nothing
    sys.exit(cli.main(sys.argv[1:]))
