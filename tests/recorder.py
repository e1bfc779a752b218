"""A subscriber in a process of its own: everything it is given goes into a file, as a line of JSON.

    python -m tests.recorder PORT FILE IDENTIFIER [FILTER…]

It has a persistent session (MQTT 5, QoS 1, no clean start), comes back by itself whenever the broker does,
and acknowledges a message only after it is written. So what is missing in its file, the broker has lost.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.recording import Line

RETRY_S = 0.05
"""Seconds between two tries to reach the broker."""
EXPIRY = 86_400
"""Seconds for which the broker keeps the session while the recorder is away."""
FILTERS = ("oneweb/#", "homeassistant/#", "elsewhere/#")
"""All that the bridge publishes below either base of the campaign, and discovery."""


class Recorder:
    """One subscriber and its file."""

    def __init__(self, port: int, path: Path, identifier: str, filters: Sequence[str]) -> None:
        self._port = port
        self._filters = filters
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._client = Client(CallbackAPIVersion.VERSION2, identifier, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._write(Line(time.time(), note="subscribed"))
        self._client.on_message = self._on_message
        self._is_new = True

    def run(self) -> None:
        """Listens until it is killed."""
        expiry = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
        expiry.SessionExpiryInterval = EXPIRY
        while True:
            try:
                self._client.connect("127.0.0.1", self._port, 10, clean_start=False, properties=expiry)
                while self._client.loop(1.0) == MQTTErrorCode.MQTT_ERR_SUCCESS:
                    pass
                self._write(Line(time.time(), note="lost"))
            except OSError:
                pass
            time.sleep(RETRY_S)

    def _write(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def _connected(
        self, client: Client, _: Any, flags: ConnectFlags, _code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._write(Line(time.time(), note="connected", session=flags.session_present))
        if flags.session_present:
            self._write(Line(time.time(), note="subscribed"))
            return
        # What is retained is for a new subscriber; one whose session was lost wants what comes from now on.
        options = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=0 if self._is_new else 2)
        self._is_new = False
        client.subscribe([(name, options) for name in self._filters])

    def _on_message(self, _client: Client, _: Any, message: MQTTMessage) -> None:
        # paho acknowledges after this has returned.
        self._write(Line(time.time(), message.topic, bytes(message.payload), message.retain, message.dup))


def main(arguments: Sequence[str]) -> None:
    """Runs until it is killed."""
    port, path, identifier, *filters = arguments
    Recorder(int(port), Path(path), identifier, filters or FILTERS).run()


if __name__ == "__main__":
    main(sys.argv[1:])
