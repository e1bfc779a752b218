"""Publishes discovery: compares each dirty device with what was last sent, and sends it when it differs.

A device is sent a little after it was marked, only when its content differs from what was sent, and
never twice in quick succession: Home Assistant drops parts of a message that comes while it is
still setting up the one before.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

from oneweb_bridge import CONTRACT, __version__
from oneweb_bridge.config import filters
from oneweb_bridge.config.schema import Config
from oneweb_bridge.homeassistant import discovery
from oneweb_bridge.homeassistant.refusals import DeviceRefusals
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.announcements import CLEARED_HASH, Devices, DeviceUpdate, DirtyDevice
from oneweb_bridge.store.errors import StoreUnavailable

_log = logging.getLogger("oneweb_bridge.announcer")

PAUSE_S = 2.0
"""Seconds between a change and its announcement, and between two announcements of a device."""
LOOK_INTERVAL_S = 0.5
CHUNK_DEVICES = 10
CHUNK_INTERVAL_S = 0.2
"""Seconds between two chunks of devices: a large fleet comes at 50 devices a second, beside everything else."""
BIRTH_DELAY_S = (1.0, 5.0)
"""Shortest and longest wait after Home Assistant's birth message; many bridges hear it at once."""


class MessageSink(Protocol):
    """Where messages go. `cursor` says how far the journal is published."""

    @property
    def cursor(self) -> int:
        """The journal row up to which everything is published."""

    async def publish_messages(self, messages: Sequence[Message]) -> list[bool] | None:
        """Sends messages. Returns which the broker accepted; None when there is no connection, or it broke."""


class Announcer:
    """`run` announces until it is cancelled."""

    def __init__(self, devices: Devices, tree: TopicTree, config: Config) -> None:
        self._devices = devices
        self._tree = tree
        self._refusals = DeviceRefusals()
        self._republish_at: float | None = None
        self._new_config: Config | None = config
        self._put_in_force(config)

    def reconfigure(self, config: Config) -> None:
        """Takes a new configuration; what it changes is announced or cleared.

        It is in force once it is noted on the disk that every device has to be looked at: else what was announced under
        a configuration that was in force for a moment would stay.
        """
        self._new_config = config

    def _put_in_force(self, config: Config) -> None:
        self._config = config
        self._setup = discovery.DiscoverySettings(
            tree=self._tree,
            prefix=config.homeassistant.discovery_prefix,
            version=__version__,
            online=config.mapping.online_states,
            accuracy=round(config.location_threshold),
            calls=config.polling,
        )

    def on_birth(self) -> None:
        """Home Assistant has started: everything is announced again, shortly."""
        if self._republish_at is None:
            self._republish_at = time.monotonic() + random.uniform(*BIRTH_DELAY_S)

    async def on_broker_state_lost(self, seq: int) -> None:
        """The broker may have lost what it was given since the journal was published to `seq`. For each connection.

        What it may have lost is noted durably, and what the one before refused is tried again.
        """
        self._refusals = DeviceRefusals()
        if count := await self._devices.mark_sent_since(seq):
            _log.info("%d devices are announced again: the broker may have lost them", count)

    async def republish_all(self) -> int:
        """Announces every device again, soon. Returns how many."""
        self._refusals = DeviceRefusals()
        return await self._devices.mark_sent_since()

    async def run(self, sink: MessageSink) -> None:
        """Announces what changes. Never returns."""
        while True:
            try:
                await self._mark_due()
                await self._reconcile(sink)
            except StoreUnavailable as error:
                _log.error("devices could not be announced: %s", error)
            await asyncio.sleep(LOOK_INTERVAL_S)

    # ── what is to be looked at ────────────────────────────────────────────────────────────────

    async def _mark_due(self) -> None:
        # Each wish is dropped only after it is on the disk, where a failed write would lose it.
        if (config := self._new_config) is not None:
            print_ = self._fingerprint(config)
            if print_ != await self._devices.fingerprint():
                own = [("bridge", ""), *(("call", call) for call in config.polling)]
                await self._devices.mark_all_dirty(print_, own)
            self._put_in_force(config)
            self._new_config = None if self._new_config is config else self._new_config
        if self._republish_at is not None and time.monotonic() >= self._republish_at:
            count = await self.republish_all()
            self._republish_at = None
            _log.info("%d devices are announced again: Home Assistant has started", count)

    def _fingerprint(self, config: Config) -> str:
        """Equal as long as the same records give the same devices."""
        calls = [(call.id, call.report, call.fields) for call in config.polling.values()]
        place = (self._tree.base, self._tree.instance)
        inputs = (config.homeassistant, config.mapping.online_states, config.location_threshold, place, calls)
        return blake2b(repr((__version__, CONTRACT, inputs)).encode(), digest_size=16).hexdigest()

    # ── bringing it about ──────────────────────────────────────────────────────────────────────

    async def _reconcile(self, sink: MessageSink) -> None:
        """One pass over the dirty devices.

        Ends early when the connection is lost, nothing is accepted, or there is a new configuration.
        """
        if not self._config.homeassistant.enabled:
            await self._devices.delete_unsent()
        while self._new_config is None and self._refusals.may_send(now := time.monotonic()):
            dirty = await self._devices.dirty(PAUSE_S, CHUNK_DEVICES, self._refusals.waiting(now))
            if not dirty or not await self._announce(dirty, sink):
                return
            await asyncio.sleep(CHUNK_INTERVAL_S)

    async def _announce(self, dirty: Sequence[DirtyDevice], sink: MessageSink) -> bool:
        """Brings some devices to what they should be. Returns whether the others may follow."""
        refusals = self._refusals
        plans = [await self._plan_update(device) for device in dirty]
        messages = [message for _, planned in plans for message in planned]
        accepted = await sink.publish_messages(messages) if messages else []
        if accepted is None:
            return False
        refused = {message.topic for message, ok in zip(messages, accepted, strict=True) if not ok}
        noted = [plan for plan, planned in plans if refused.isdisjoint(message.topic for message in planned)]
        left = [plan.device for plan, _ in plans if plan not in noted]
        refusals.note([plan.device for plan in noted], left, time.monotonic())
        # What the connection before this one answered says nothing of what the broker has now; and another one may
        # begin while this waits: what is marked for it must not be taken for sent.
        await self._devices.note(noted, sink.cursor, lambda: refusals is self._refusals)
        return bool(noted)

    async def _plan_update(self, device: DirtyDevice) -> tuple[DeviceUpdate, list[Message]]:
        """What is to be sent of a device, and what to note when it was."""
        payload = await self._payload_of(device)
        if payload is None or not payload["components"]:
            is_cleared = not device.topic or device.hash == CLEARED_HASH
            cleared = [] if is_cleared else [discovery.message(device.topic, None)]
            return DeviceUpdate(
                device=device, topic=device.topic, hash=CLEARED_HASH if device.topic else b"", was_sent=not is_cleared
            ), cleared
        topic = discovery.topic(self._setup, device.kind, device.id)  # type: ignore[arg-type]  # it is one of Device
        moved = [discovery.message(device.topic, None)] if device.topic not in ("", topic) else []
        before = {} if moved else device.entities
        message = discovery.message(topic, discovery.with_removed_entities(payload, before))
        hash_ = blake2b(message.payload, digest_size=16).digest()
        entities = discovery.platforms(payload)
        same = hash_ == device.hash and topic == device.topic
        sent = DeviceUpdate(
            device=device,
            topic=topic,
            hash=hash_,
            entities=entities,
            was_sent=not same,
            # An entity that is gone is named once more, and then not any more.
            stays_dirty=not same and not before.keys() <= entities.keys(),
        )
        return sent, [] if same else [*moved, message]

    async def _payload_of(self, device: DirtyDevice) -> dict[str, object] | None:
        """The payload of a device, or None when it is not to be announced."""
        if not self._config.homeassistant.enabled:
            return None
        match device.kind:
            case "bridge":
                return discovery.bridge(self._setup)
            case "call":
                return discovery.call(self._setup, device.id) if device.id in self._config.polling else None
            case "terminal":
                return await self._terminal(device.id)
            case _:
                return await self._product(device.id)

    async def _terminal(self, imei: str) -> dict[str, object] | None:
        record, rule = await self._devices.record("terminal", imei), self._config.homeassistant.filter
        if record is None or not filters.wanted(rule, "terminal", record):
            return None
        known = discovery.Terminal(
            imei=imei,
            record=record,
            components=await self._devices.record("components", imei) or {},
            reports=await self._report_values("terminal", imei),
            shared_name=await self._devices.terminals_named(str(record.get("name", ""))) > 1,
        )
        return discovery.terminal(self._setup, known)

    async def _product(self, product_id: str) -> dict[str, object] | None:
        record, rule = await self._devices.record("product", product_id), self._config.homeassistant.filter
        if record is None:
            return None
        terminals = await self._devices.terminals_of(product_id)
        # A product that does not say its terminal belongs to the one that names it.
        linked = {"imei": terminals[0][0]} if terminals else {}
        if not filters.wanted(rule, "product", {**linked, **record}):
            return None
        announced = (imei for imei, terminal in terminals if filters.wanted(rule, "terminal", terminal))
        buckets = await self._devices.buckets(product_id)
        known = discovery.Product(
            product_id=product_id,
            record=record,
            imei=next(announced, None),
            reports=await self._report_values("product", product_id),
            buckets=buckets,
            forecasts=await self._devices.forecasts([str(bucket["bucket_id"]) for bucket in buckets]),
        )
        return discovery.product(self._setup, known)

    async def _report_values(self, entity: str, id: str) -> list[discovery.ReportValues]:
        reports = [call.report for call in self._config.polling.values() if call.report and call.entity == entity]
        return [
            discovery.parse_value_types(report, types) for report, types in await self._devices.value_types(reports, id)
        ]
