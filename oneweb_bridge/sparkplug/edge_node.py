"""One Edge Node's session: which message it sends next, with which `seq` and which aliases. Pure.

A session lasts as long as its connection. `seq` counts all its messages, of the node and of its Devices, from 0 at
each NBIRTH; `bdSeq` is one for the connection, and stands in its will and in each of its births.
Source: Sparkplug 3.0.0, chapters 5.4 to 5.11, 6.4.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from oneweb_bridge.sparkplug import payload
from oneweb_bridge.sparkplug.payload import Aliased
from oneweb_bridge.sparkplug.tree import Metric, MetricSpec, MetricType

NAMESPACE = "spBv1.0"
BD_SEQ = MetricSpec("bdSeq", MetricType.INT64)
REBIRTH = MetricSpec("Node Control/Rebirth", MetricType.BOOLEAN, writable=True)
WITHOUT_ALIAS = (BD_SEQ.name, REBIRTH.name)
"""Hosts ask for these two by name before they know any alias."""

_NONE: Mapping[str, Any] = MappingProxyType({})


class NotBorn(Exception):
    """A Device, or a metric of it, is not in its last birth, and nothing may be sent of it before it is."""


class EdgeMessage(msgspec.Struct, frozen=True, gc=False):
    """What goes to the broker: births and data with QoS 0, deaths of the node with QoS 1; never retained."""

    topic: str
    payload: bytes
    qos: int = 0


def next_bd_seq(bd_seq: int) -> int:
    """The `bdSeq` of the next CONNECT."""
    return (bd_seq + 1) % 256


class EdgeNode:
    """The messages of one connection of one Edge Node, in the order in which they must be sent."""

    def __init__(self, group_id: str, edge_node_id: str, bd_seq: int) -> None:
        self._group, self._id, self._bd_seq = group_id, edge_node_id, bd_seq
        self._seq = 0
        self._aliases: dict[tuple[str, str], int] = {}
        self._by_alias: dict[int, MetricSpec] = {}
        """Of the node's own metrics alone: nobody may write those of Devices."""
        self._born: dict[str, set[str]] = {}
        """Device ('' for the node) -> the names of the metrics in its last birth."""

    @property
    def command_filter(self) -> str:
        """The topic on which hosts write."""
        return self._topic("NCMD")

    def will(self) -> EdgeMessage:
        """What the broker sends when the connection breaks."""
        return EdgeMessage(self._topic("NDEATH"), payload.encode_node_death(self._bd_seq), qos=1)

    def death(self, ts: int) -> EdgeMessage:
        """The last message of a session that ends in order; nothing is born afterwards."""
        self._born.clear()
        return EdgeMessage(self._topic("NDEATH"), payload.encode_node_death(self._bd_seq, ts), qos=1)

    @property
    def is_born(self) -> bool:
        """Whether the node's own birth has been made in this session, after the last death."""
        return "" in self._born

    def has_born(self, device: str) -> bool:
        """Whether a Device is in a birth since the node's last one."""
        return device in self._born

    def has_metrics(self, device: str, names: Iterable[str]) -> bool:
        """Whether all these metrics are in the last birth of a Device."""
        return self._born.get(device, set()).issuperset(names)

    def node_birth(self, metrics: Sequence[Metric], ts: int, texts: Mapping[str, str] | None = None) -> EdgeMessage:
        """NBIRTH with seq 0. All Devices have to be born again after it."""
        self._born.clear()
        self._seq = 0
        control = (Metric(BD_SEQ, self._bd_seq, ts), Metric(REBIRTH, value=False, ts=ts))
        return self._birth("NBIRTH", "", (*control, *metrics), ts, texts=texts or {})

    def device_birth(
        self,
        device: str,
        metrics: Sequence[Metric],
        ts: int,
        *,
        qualities: Mapping[str, int] | None = None,
    ) -> EdgeMessage:
        """DBIRTH with all metrics that the Device may report. `qualities` are those that are not good, by name.

        Raises NotBorn before the node's own birth.
        """
        if not self.is_born:
            raise NotBorn(self._id)
        return self._birth("DBIRTH", device, metrics, ts, qualities=qualities or {})

    def _birth(
        self,
        verb: str,
        device: str,
        metrics: Sequence[Metric],
        ts: int,
        *,
        texts: Mapping[str, str] = _NONE,
        qualities: Mapping[str, int] = _NONE,
    ) -> EdgeMessage:
        aliased = [
            Aliased(metric, self._alias(device, metric.spec), quality=qualities.get(metric.spec.name))
            for metric in metrics
        ]
        self._born[device] = {metric.spec.name for metric in metrics}
        return EdgeMessage(self._topic(verb, device), payload.encode_birth(aliased, ts, self._next_seq(), texts))

    def device_death(self, device: str, ts: int) -> EdgeMessage:
        """DDEATH. Raises NotBorn for a Device that is not born."""
        if self._born.pop(device, None) is None:
            raise NotBorn(device)
        return EdgeMessage(self._topic("DDEATH", device), payload.encode_device_death(ts, self._next_seq()))

    def data(
        self,
        device: str,
        metrics: Iterable[Metric],
        ts: int,
        *,
        historical: bool = False,
        quality: int | None = None,
    ) -> EdgeMessage:
        """NDATA (device '') or DDATA, each metric by its alias. Raises NotBorn for what no birth has said."""
        born = self._born.get(device)
        sent = list(metrics)
        if born is None or not born.issuperset(metric.spec.name for metric in sent):
            raise NotBorn(device)
        aliased = [Aliased(metric, self._alias(device, metric.spec), historical, quality) for metric in sent]
        verb = "DDATA" if device else "NDATA"
        return EdgeMessage(self._topic(verb, device), payload.encode_data(aliased, ts, self._next_seq()))

    def spec_of(self, written: payload.Written) -> MetricSpec | None:
        """The node's metric that an NCMD names, by alias or by name; None of any other."""
        if written.name == REBIRTH.name:
            return REBIRTH
        alias = self._aliases.get(("", written.name)) if written.name else written.alias
        return None if alias is None else self._by_alias.get(alias)

    def _alias(self, device: str, spec: MetricSpec) -> int | None:
        if not device and spec.name in WITHOUT_ALIAS:
            return None
        key = (device, spec.name)
        alias = self._aliases.setdefault(key, len(self._aliases) + 1)
        if not device:
            self._by_alias[alias] = spec
        return alias

    def _next_seq(self) -> int:
        seq, self._seq = self._seq, (self._seq + 1) % 256
        return seq

    def _topic(self, verb: str, device: str = "") -> str:
        levels = (NAMESPACE, self._group, verb, self._id, *((device,) if device else ()))
        return "/".join(levels)
