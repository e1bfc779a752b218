"""Reads and writes PUBLISH and PUBACK past the outer layers of paho.

paho writes each PUBLISH by itself, and makes five objects and three reads of each PUBACK. Here what is sent in one
turn of the event loop leaves in one write, and all PUBACKs of one read are completed at once, without paho. So paho
does not see that they came, and asks for a sign of life once in `KEEPALIVE` seconds though the broker gave many.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Literal

from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import MQTTErrorCode

from oneweb_bridge.mqtt import packets
from oneweb_bridge.mqtt.broker_errors import FIRST_REFUSAL_CODE, reason_name

OnPuback = Callable[[int, int, str], None]
"""Packet id, reason code and its name, with the broker's own words where it gave some."""


class PahoIo:
    """Of one client of paho. `on_lost` is called when the socket ends, `on_broken` when paho cannot write."""

    def __init__(
        self,
        client: Paho,
        loop: asyncio.AbstractEventLoop,
        on_puback: OnPuback,
        *,
        on_lost: Callable[[OSError | None], None],
        on_broken: Callable[[Exception], None],
    ) -> None:
        self.on_puback = on_puback
        self.on_read: Callable[[], None] = lambda: None
        """Called when everything that was read is handled."""
        self._client = client
        self._loop = loop
        self._on_lost = on_lost
        self._on_broken = on_broken
        self.has_written = False
        """Whether anything was sent, of which CONNECT is the first."""
        self._sent: set[int] = set()
        self._outgoing: list[bytes] = []
        self._is_reading = False
        self._read, self._at = b"", 0
        self._replace_paho_methods()

    def send(self, packet_id: int, packet: bytes) -> None:
        """Sends a PUBLISH; `on_puback` is given its answer. It leaves before the event loop goes on."""
        self.write_packet(packet)
        self._sent.add(packet_id)

    def write_packet(self, packet: bytes) -> None:
        """Sends a packet that has no answer. It leaves before the event loop goes on."""
        if not self._outgoing and not self._is_reading:
            self._loop.call_soon(self.flush)
        self._outgoing.append(packet)

    def _replace_paho_methods(self) -> None:
        """Replaces four private methods of paho: `_handle_pubackcomp`, `_sock_recv`, `_sock_send`, `loop_read`."""
        client = self._client
        self._paho_puback, self._paho_recv, self._paho_send, self._paho_read = (
            client._handle_pubackcomp,
            client._sock_recv,
            client._sock_send,
            client.loop_read,
        )
        client._handle_pubackcomp = self._on_puback_packet  # type: ignore[method-assign]
        client._sock_recv = self._recv  # type: ignore[method-assign]
        client._sock_send = self._send  # type: ignore[method-assign]
        client.loop_read = self._loop_read  # type: ignore[method-assign]

    def _recv(self, bufsize: int) -> bytes:
        """Bytes of the connection, read in large pieces: paho asks for each packet in three small ones."""
        if self._at >= len(self._read):
            self._read, self._at = self._read_socket(), 0
        piece = self._read[self._at : self._at + bufsize]
        self._at += len(piece)
        return piece

    def _read_socket(self) -> bytes:
        try:
            piece = self._paho_recv(65536)
        except BlockingIOError:
            raise
        except OSError as error:
            self._on_lost(error)
            raise
        if not piece:
            self._on_lost(None)
        return piece

    def _send(self, buf: bytes | bytearray) -> int:
        """Writes to the connection. The first write may be in the thread of paho's `connect`."""
        self.has_written = True
        try:
            return self._paho_send(buf)
        except BlockingIOError:
            raise
        except OSError as error:
            self._loop.call_soon_threadsafe(self._on_lost, self._more_specific_error(error))
            raise

    def _more_specific_error(self, error: OSError) -> OSError:
        """The error of a read where there is one: it names the TLS alert that the failed write does not."""
        try:
            self._paho_recv(1)
        except BlockingIOError:
            return error
        except OSError as read_error:
            return read_error
        return error

    def _loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Handles everything that was read, and sends what follows from it at once, not a turn of the loop later."""
        self._is_reading = True
        try:
            code = self._read_packets(max_packets)
            self.on_read()
        finally:
            self._is_reading = False
            self.flush()
        return code

    def _read_packets(self, max_packets: int) -> MQTTErrorCode:
        """Handles everything that was read, because the event loop only tells of what is still unread."""
        self._read_ahead()
        while True:
            has_completed = self._complete_pubacks()
            if has_completed and self._at >= len(self._read):
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            code = self._paho_read(max_packets)
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self._at >= len(self._read):
                return code

    def _read_ahead(self) -> None:
        """Reads what has come, unless paho has half a packet. What fails here fails again when paho reads."""
        client: Any = self._client
        if client._sock is not None and client._in_packet["command"] == 0 and self._at >= len(self._read):
            with contextlib.suppress(OSError):
                self._read, self._at = self._read_socket(), 0

    def _complete_pubacks(self) -> bool:
        """Completes the PUBACKs that come next in what was read, up to the first packet that is for paho.

        Returns whether there was one.
        """
        begun = self._at
        while (puback := packets.next_puback(self._read, self._at)) is not None and self._handle_answer(puback[0]):
            self._at = puback[1]
        return self._at > begun

    def free_packet_id(self) -> int:
        """A packet id that no message on its way has; paho shares them with its subscriptions."""
        while (mid := self._client._mid_generate()) in self._sent:
            pass
        return mid

    def flush(self) -> None:
        """Hands all that was sent to paho as if it were one packet: one write instead of one for each message."""
        if not self._outgoing:
            return
        whole, self._outgoing = b"".join(self._outgoing), []
        packet: Any = {
            "command": packets.PUBLISH,
            "mid": 0,
            "qos": 1,
            "pos": 0,
            "to_process": len(whole),
            "packet": whole,
            "info": None,
        }
        self._client._out_packet.append(packet)
        self.write()

    def write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:  # noqa: BLE001  # whatever it is, this connection is broken
            self._on_broken(error)

    def _on_puback_packet(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        """Completes a PUBACK that paho has read, if it is for a message that `send` sent."""
        answer = packets.decode_puback(bytes(self._client._in_packet["packet"]))
        if answer is not None and self._handle_answer(answer):
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return self._paho_puback(cmd)

    def _handle_answer(self, answer: packets.Puback) -> bool:
        """Hands on the answer to a message of `send`. Returns whether it was one. Source: MQTT 5, 3.4."""
        if answer.packet_id not in self._sent:
            return False
        self._sent.discard(answer.packet_id)
        self.on_puback(answer.packet_id, answer.code, reason_name(answer) if answer.code >= FIRST_REFUSAL_CODE else "")
        return True
