"""Decodes payloads with pysparkplug: reads lines of verb, Device and hex, writes a line of JSON for each.

Runs in an environment of its own: pysparkplug needs paho-mqtt 1.
"""

import json
import sys
from typing import Any

import pysparkplug

births: dict[str, Any] = {}


def plain(metric: Any) -> dict[str, Any]:
    """A metric; whole numbers and times as text, because 64 bits do not fit into every reader of JSON."""
    kind, value = metric.datatype.name.lower(), metric.value
    if kind == "datetime" and value is not None:
        value = round(value.timestamp() * 1000)
    is_whole = kind in ("int32", "int64", "datetime") and value is not None
    return {
        "name": metric.name,
        "alias": None if metric.alias is None else str(metric.alias),
        "type": kind,
        "value": str(value) if is_whole else value,
        "historical": metric.is_historical,
        "ts": None if metric.timestamp is None else str(metric.timestamp),
    }


def decode(verb: str, device: str, body: bytes) -> dict[str, Any]:
    """One payload, with the last birth of its Device."""
    kind = {
        name.upper(): getattr(pysparkplug, name) for name in ("NBirth", "DBirth", "NData", "DData", "NDeath", "DDeath")
    }
    payload = kind[verb].decode(body, birth=births.get(device))
    if verb.endswith("BIRTH"):
        births[device] = payload
    metrics = [payload.bd_seq_metric] if verb == "NDEATH" else getattr(payload, "metrics", ())
    seq = getattr(payload, "seq", None)
    return {"seq": None if seq is None else str(seq), "metrics": [plain(metric) for metric in metrics]}


for line in sys.stdin:
    verb, device, body = line.rstrip("\n").split(" ")
    print(json.dumps(decode(verb, device, bytes.fromhex(body))))
