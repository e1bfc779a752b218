"""Every payload of the scenarios, decoded by two parties that know nothing of the bridge.

npm's `sparkplug-payload` reads a value only with its datatype, which data do not repeat: those are given the datatypes
of their births first, as a host does. `pysparkplug` takes the births itself.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oneweb_bridge.sparkplug import sparkplug_b_pb2 as pb
from tests.sparkplug import scenarios
from tests.sparkplug.facts import Facts
from tests.sparkplug.handmade import tell, tell_of_host
from tests.sparkplug.reader import Metric, read_payload
from tests.sparkplug.wire import Trace

pytestmark = pytest.mark.decoders
HERE = Path(__file__).parent
PLACE = HERE.parent.parent.parent / ".sparkplug"
TYPES = {3: "int32", 4: "int64", 10: "double", 11: "boolean", 12: "string", 13: "datetime"}


class Sent(msgspec.Struct, frozen=True):
    """A payload as it was on the wire. `typed` has the datatypes of its births in it, `metrics` are as we read them."""

    verb: str
    device: str
    body: bytes
    typed: bytes
    seq: int | None
    metrics: Sequence[tuple[Metric, str | None, int]]
    """Each with the name and the datatype of its birth."""


def _sent(trace: Trace) -> Iterator[Sent]:
    """All payloads of a trace, wills included."""
    known: dict[tuple[str, int | None], tuple[str | None, int]] = {}
    for session in Facts(trace).sessions:
        assert session.connect
        assert session.connect.will
        yield _sent_message("NDEATH", "-", session.connect.will.payload, known)
        for message in session.sent:
            yield _sent_message(message.verb, message.device or "-", message.body, known)


def _sent_message(
    verb: str, device: str, body: bytes, known: dict[tuple[str, int | None], tuple[str | None, int]]
) -> Sent:
    payload, typed = read_payload(body), pb.Payload.FromString(body)
    metrics = []
    for metric, entry in zip(payload.metrics, typed.metrics, strict=True):
        if metric.datatype is not None and metric.alias is not None:
            known[device, metric.alias] = (metric.name, metric.datatype)
        name, datatype = (metric.name, metric.datatype) if metric.datatype else known[device, metric.alias]
        assert datatype is not None
        entry.datatype = datatype
        metrics.append((metric, name, datatype))
    return Sent(verb, device, body, typed.SerializeToString(), payload.seq, metrics)


def _expected(sent: Sent, *, with_names: bool) -> dict[str, Any]:
    return {
        "seq": None if sent.seq is None else str(sent.seq),
        "metrics": [
            {
                "name": name if with_names else metric.name,
                "alias": None if metric.alias is None else str(metric.alias),
                "type": TYPES[datatype],
                "value": _plain(metric.meaning(datatype), datatype),
                "historical": metric.is_historical,
                "ts": None if metric.timestamp is None else str(metric.timestamp),
            }
            for metric, name, datatype in sent.metrics
        ],
    }


def _plain(value: Any, datatype: int) -> Any:
    return str(value) if datatype in (3, 4, 13) and value is not None else value


def _decoded(command: Sequence[str | Path], lines: Sequence[str]) -> list[dict[str, Any]]:
    ended = subprocess.run(
        command, input="\n".join(lines) + "\n", text=True, check=False, capture_output=True, cwd=PLACE, timeout=120
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture
async def payloads(tmp_path: Path) -> list[Sent]:
    """Those of the real scenarios, and of the hand-made sessions."""
    traces = [*await scenarios.tell_all(tmp_path), tell(4), tell_of_host(5)]
    return [sent for trace in traces for sent in _sent(trace)]


async def test_two_decoders_read_what_was_sent(payloads: list[Sent]) -> None:
    """Names, aliases, types, values, nulls, history and times are the same for both, and as we read them."""
    _check_coverage(payloads)
    program = (HERE / "decode.js").read_text()
    node = _decoded(["node", "-e", program], [sent.typed.hex() for sent in payloads])
    python = _decoded(
        [PLACE / "python" / "bin" / "python", HERE / "decode_with_pysparkplug.py"],
        [f"{sent.verb} {sent.device} {sent.body.hex()}" for sent in payloads],
    )
    assert len(node) == len(python) == len(payloads) > 300
    for sent, by_node, by_python in zip(payloads, node, python, strict=True):
        assert by_node == _expected(sent, with_names=False), sent.verb
        assert by_python == _expected(sent, with_names=True), sent.verb


def _check_coverage(payloads: Sequence[Sent]) -> None:
    """All types of the tree are among them, nulls, history, and a number that needs more than 53 bits."""
    metrics = [(metric, datatype) for sent in payloads for metric, _, datatype in sent.metrics]
    assert {4, 10, 11, 12, 13} <= {datatype for _, datatype in metrics}
    assert any(metric.is_null for metric, _ in metrics)
    assert any(metric.is_historical for metric, _ in metrics)
    assert any(datatype == 4 and not metric.is_null and metric.value > 1 << 53 for metric, datatype in metrics)
