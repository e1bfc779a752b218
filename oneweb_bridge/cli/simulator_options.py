"""The arguments of `simulate` as options of the simulator."""

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from oneweb_bridge.encoding import describe_mismatch
from oneweb_bridge.simulator import Options, Shape


def simulator_options(arguments: Mapping[str, Any]) -> Options:
    """Options from the arguments, which are text. Raises ValueError."""
    fields = msgspec.structs.fields(Options)
    given = {field.name: arguments[field.name] for field in fields if field.name != "shape"}
    pairs = [pair.partition("=") for pair in arguments["shape"]]
    for name, sign, _ in pairs:
        if not sign or name not in Shape.__struct_fields__:
            raise ValueError(f"--shape: expected NAME=VALUE, and '{name[:40]}' is no NAME that --help lists")
    try:
        shape = msgspec.convert({name: value for name, _, value in pairs}, Shape, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"--shape {describe_mismatch(error, Shape)}") from None
    try:
        return msgspec.structs.replace(msgspec.convert(given, Options, strict=False), shape=shape)
    except msgspec.ValidationError as error:
        name, colon, rest = describe_mismatch(error, Options).partition(":")
        raise ValueError(f"--{name.replace('_', '-')}{colon}{rest}") from None


def shape_help() -> str:
    """The names of `--shape`, each with its values where they are a closed list."""
    kinds = get_type_hints(Shape)
    choices = {name: get_args(kind) for name, kind in kinds.items() if get_origin(kind) is Literal}
    return ", ".join(f"{name} ({'|'.join(choices[name])})" if name in choices else name for name in kinds)
