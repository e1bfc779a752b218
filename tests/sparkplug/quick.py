"""The real command with shorter waits, so that a scenario sees in seconds what else takes a minute.

At its end it waits longer: a busy machine does not cut its goodbye off.

python -m tests.sparkplug.quick run -c bridge.yaml
"""

import sys

from oneweb_bridge.cli import main as cli
from oneweb_bridge.cli import running, signals
from oneweb_bridge.sparkplug import api_watch, node, wire

STALE_AFTER_S = 1.0
RECONNECT_S = 0.2
GOODBYE_S = 40.0


def main() -> int:
    """Runs the command. Raises AttributeError when what it changes is gone."""
    for module, name, value in (
        (api_watch, "STALE_AFTER_S", STALE_AFTER_S),
        (node, "FIRST_RECONNECT_S", RECONNECT_S),
        (wire, "DEATH_TIMEOUT_S", GOODBYE_S),
        (signals, "CANCEL_AGAIN_S", GOODBYE_S),
        (running, "MAX_STOP_S", GOODBYE_S),
    ):
        getattr(module, name)
        setattr(module, name, value)
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
