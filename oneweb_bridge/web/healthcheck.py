"""The container's health check: requests /healthz at the address where the bridge of a configuration listens.

`python -m oneweb_bridge.web.healthcheck FILE`: exit 0 while the bridge makes progress, else 1 with a sentence.
"""

import http.client
import os
import sys
from pathlib import Path

from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.read import load
from oneweb_bridge.files import refusal_of

TIMEOUT_S = 4.0
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- asked, not listened on
"""Addresses that mean all of this machine -> the one to connect to."""


def main(arguments: list[str]) -> int:
    """Sends one request. Returns the exit code."""
    try:
        listen, port = load(Path(arguments[0]) if arguments else None, os.environ).http.address()
    except ConfigError as error:
        print(f"healthcheck: {error}", file=sys.stderr)
        return 1
    try:
        connection = http.client.HTTPConnection(_ANY.get(listen, listen), port, timeout=TIMEOUT_S)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else refusal_of(error)
        print(f"healthcheck: http.listen, {listen}:{port}, does not answer ({reason})", file=sys.stderr)
        return 1
    except http.client.HTTPException:
        print(f"healthcheck: something else than the bridge answers at http.listen, {listen}:{port}", file=sys.stderr)
        return 1
    connection.close()
    print(f"healthcheck: /healthz on port {port} answers {status}")
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
