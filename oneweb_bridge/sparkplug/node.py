"""Keeps a connection of an Edge Node: one session after the other, with growing pauses between."""

import asyncio
import logging
import secrets
import time
from typing import Any, NoReturn

import aiomqtt

from oneweb_bridge.config.servers import server_name
from oneweb_bridge.model.backoff import BackOff
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.broker_errors import TakenOver, describe_connection_error
from oneweb_bridge.mqtt.link import MqttConnection, run_in_own_task
from oneweb_bridge.mqtt.servers import ServerList
from oneweb_bridge.sparkplug.edge_node import EdgeNode
from oneweb_bridge.sparkplug.session import EdgeSession, HostOffline
from oneweb_bridge.sparkplug.shared import NodeState, SharedState
from oneweb_bridge.store.errors import StoreUnavailable

_log = logging.getLogger("oneweb_bridge.sparkplug")

FIRST_RECONNECT_S = 1.0
MAX_RECONNECT_S = 60.0
HOST_TIMEOUT_S = 30.0
"""Seconds after which a primary host that is not on this server is looked for on the next one."""
HEALTHY_AFTER_S = 60.0
"""Seconds of connection after which the next loss is followed by a quick reconnect again."""


class EdgeNodeRunner:
    """`run` keeps a connection until it is cancelled."""

    def __init__(self, shared: SharedState, state: NodeState) -> None:
        self._shared = shared
        self._state = state
        self._servers = ServerList(shared.mqtt)
        self._bd_seq: int | None = None
        """The `bdSeq` that is noted for the next CONNECT; None when the last one was used."""

    async def run(self) -> NoReturn:
        """Connects, and connects again with growing pauses. Never returns."""
        pauses = BackOff(FIRST_RECONNECT_S, MAX_RECONNECT_S)
        while True:
            started, error, may_go_on = time.monotonic(), "the connection ended", True
            try:
                await run_in_own_task(self._connect(), "edge connection")
            except* HostOffline:
                pauses.reset()
                error = "the primary host is offline"
            except* TakenOver as group:
                may_go_on = False
                error = describe_connection_error(_first_error(group))
                await self._shared.refuse(self._twin_sentence())
            except* (aiomqtt.MqttError, OSError, TimeoutError) as group:
                error = describe_connection_error(_first_error(group))
            except* StoreUnavailable as group:
                may_go_on = False
                error = f"the database could not be read or written: {_first_error(group)}"
            if time.monotonic() - started > HEALTHY_AFTER_S:
                pauses.reset()
                self._servers.begin_round()
            if may_go_on and self._servers.go_to_next():
                next_server = server_name(self._servers.current)
                _log.warning("Edge Node %s: %s; the next server is %s", self._state.edge_node_id, error, next_server)
                continue
            pause = pauses.pause()
            pause *= 1 if pause == FIRST_RECONNECT_S else 0.8 + secrets.randbelow(400) / 1000
            _log.warning("Edge Node %s: %s; next try in %.0f s", self._state.edge_node_id, error, pause)
            await asyncio.sleep(pause)

    def _twin_sentence(self) -> str:
        return (
            f"Sparkplug: another client connects as {self._client_id}: two bridges have the same instance; "
            "give each its own"
        )

    @property
    def _client_id(self) -> str:
        return f"oneweb-bridge-{self._shared.config.instance}-sparkplug-{self._state.number}"

    async def _connect(self) -> None:
        """One connection. Its `bdSeq` is on the disk before CONNECT is sent, and is used for one CONNECT only."""
        shared, state = self._shared, self._state
        if self._servers.settings != shared.mqtt:
            self._servers = ServerList(shared.mqtt)
        if self._bd_seq is None:
            self._bd_seq = await shared.tables.next_bd_seq(state.number)
        group_id, mqtt = shared.config.sparkplug.group_id, self._servers.current
        node = EdgeNode(group_id, state.edge_node_id, self._bd_seq, mqtt.max_payload)
        will = node.will()
        message = Message(will.topic, will.payload, retain=False, content_type="")
        link = MqttConnection(mqtt, self._client_id, will=message)
        try:
            async with link:
                _log.info("Edge Node %s: connected to %s", state.edge_node_id, server_name(mqtt))
                await EdgeSession(shared, state, link, node, host_timeout=self._host_timeout()).run()
        finally:
            if link.has_sent_connect:
                self._bd_seq = None

    def _host_timeout(self) -> float | None:
        """Seconds to wait on one server for the primary host; no end where there is no other server."""
        return HOST_TIMEOUT_S if self._servers.has_several() else None


def _first_error(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
