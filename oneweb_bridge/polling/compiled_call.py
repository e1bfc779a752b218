"""A call made ready for polling: its decoders compiled, its hashes salted with its configuration."""

from collections.abc import Callable
from typing import Any

import msgspec

from oneweb_bridge.config.calls import mapping_fingerprint
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode import record_hashes
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.coverage import Expected
from oneweb_bridge.decode.fields import DecodeRules
from oneweb_bridge.decode.records import record_decoder
from oneweb_bridge.decode.samples import SampleDecoder, sample_decoder
from oneweb_bridge.model.records import DecodedRecord, RecordKind
from oneweb_bridge.polling import vanishing

DECODING = 2
"""To be raised when more forms of an answer are read: all records are compared once; the mapping is the same."""


class CompiledCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call with what is compiled from it and from the configuration."""

    call: Call
    kind: RecordKind
    fingerprint: str
    salt: record_hashes.Salt
    hasher: record_hashes.RecordHasher
    decode_record: Callable[[str, Any], DecodedRecord]
    decode_samples: SampleDecoder
    volatile: frozenset[str]
    measurement_times: tuple[str, ...]
    """The fields that tell when something was seen or updated: the volatile times."""
    unordered: frozenset[str]
    """The fields whose lists have no order."""
    traits: vanishing.Traits
    expected: Expected


def compile_call(call: Call, config: Config) -> CompiledCall:
    """Compiles a call under a configuration."""
    rules = DecodeRules(config.mapping.timezone, tuple(config.mapping.unlimited))
    fingerprint = mapping_fingerprint(call, config.mapping)
    kind: RecordKind = {"components": "components", "usage": "usage"}.get(call.reads, call.entity)  # type: ignore[assignment]
    volatile = frozenset(field.name for field in call.fields if field.volatile)
    # Another threshold or filter makes every record be compared again, but is no change of the mapping.
    salted = f"{fingerprint} {DECODING} {config.location_threshold} {config.filter} {call.match}".rstrip()
    return CompiledCall(
        call=call,
        kind=kind,
        fingerprint=fingerprint,
        salt=record_hashes.Salt.of(salted),
        hasher=record_hashes.record_hasher(call),
        decode_record=record_decoder(call, rules),
        decode_samples=sample_decoder(call, rules),
        volatile=volatile,
        measurement_times=tuple(field.name for field in call.fields if field.volatile and field.type == "time"),
        unordered=frozenset(field.name for field in call.fields if field.type == "set"),
        traits=vanishing.Traits(
            volatile=volatile,
            no_limit={field.name: field.unlimited for field in call.fields if field.unlimited},
            derived={"parent_id": "kind"} if call.derive == "organization_kind" else {},
        ),
        expected=Expected.of(call, config.mapping.online_states),
    )


def compile_calls(config: Config) -> dict[str, CompiledCall]:
    """All calls of a configuration, by their ids."""
    return {id: compile_call(call, config) for id, call in config.polling.items()}


def compiled_settings(config: Config) -> tuple[object, ...]:
    """The settings that compiled calls, and pages cached under them, depend on."""
    return config.polling, config.mapping, config.filter, config.location_threshold, config.api.clock_tolerance
