"""Where the web console is, and whether it answers there: for `check` and `status --open`."""

import http.client
from urllib.parse import urlsplit

import msgspec

from oneweb_bridge.config.schema import Config
from oneweb_bridge.encoding import one_line
from oneweb_bridge.files import refusal_of
from oneweb_bridge.web.access import SESSION, address_of, rules_of

TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 4096


class ConsoleState(msgspec.Struct, frozen=True):
    """The console's address, None where it cannot be known; whether it answers; and what to tell in a sentence."""

    address: str | None
    is_answering: bool
    sentence: str


class _Answer(msgspec.Struct):
    signed_in: bool | None = None
    error: str | None = None


def look_for_console(config: Config) -> ConsoleState:
    """Asks the console at its configured address who is asking. Never raises for what it finds there."""
    off, address = rules_of(config).off, address_of(config)
    if off is not None:
        return ConsoleState(None, is_answering=False, sentence=off)
    if config.http.address()[1] == 0:
        sentence = "console: http.listen leaves the port open; the log of the bridge has the address"
        return ConsoleState(None, is_answering=False, sentence=sentence)
    try:
        answer = _ask(address)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else refusal_of(error)
        sentence = (
            f"console: nothing answers at {address} ({reason}): start the bridge, or look at http.listen in its log"
        )
        return ConsoleState(address, is_answering=False, sentence=sentence)
    except (msgspec.MsgspecError, ValueError, RecursionError, http.client.HTTPException):
        # http.client fails by ValueError for a chunk of a negative size.
        sentence = f"console: something else answers at {address}: choose another port in http.listen"
        return ConsoleState(address, is_answering=False, sentence=sentence)
    if answer.signed_in is None:
        return ConsoleState(address, is_answering=False, sentence=f"console: {one_line(answer.error or 'no answer')}")
    return ConsoleState(address, is_answering=True, sentence=f"console: {address} answers{_warning(config)}")


def _ask(address: str) -> _Answer:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", SESSION)
        return msgspec.json.decode(connection.getresponse().read(MAX_ANSWER_BYTES), type=_Answer)
    finally:
        connection.close()


def _warning(config: Config) -> str:
    if config.console.token:
        return ""
    return (
        ". There is no console.token: a proxy on this host that sends no X-Forwarded-For would let in everybody "
        "who reaches it"
    )
