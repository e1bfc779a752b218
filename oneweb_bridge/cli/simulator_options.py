"""The arguments of `simulate` as options of the simulator."""

from collections.abc import Mapping
from typing import Any

import msgspec

from oneweb_bridge.simulator import Options, Shape


def simulator_options(arguments: Mapping[str, Any]) -> Options:
    """Options from the arguments, which are text. Raises ValueError and msgspec.ValidationError."""
    fields = msgspec.structs.fields(Options)
    given = {field.name: arguments[field.name] for field in fields if field.name != "shape"}
    pairs = [pair.partition("=") for pair in arguments["shape"]]
    for name, sign, _ in pairs:
        if not sign or name not in Shape.__struct_fields__:
            raise ValueError(f"--shape: expected NAME=VALUE, and '{name[:40]}' is no NAME that --help lists")
    shape = msgspec.convert({name: value for name, _, value in pairs}, Shape, strict=False)
    return msgspec.structs.replace(msgspec.convert(given, Options, strict=False), shape=shape)
