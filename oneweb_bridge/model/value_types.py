"""The types of a report's values, by which discovery knows its entities. Pure."""

from oneweb_bridge.model.records import Fields, Value


def value_types(values: Fields) -> str:
    """`name=type` of each value, with n(umber), t(ext) or b(ool) for the type. Lists are left out."""
    return " ".join(sorted(f"{name}={_value_type(value)}" for name, value in values.items() if type(value) is not list))


def merge_value_types(before: str, after: str) -> str:
    """All names of both; one with different types becomes a text, which can show either."""
    types: dict[str, str] = {}
    for part in f"{before} {after}".split():
        name, _, value_type = part.partition("=")
        types[name] = value_type if types.get(name, value_type) == value_type else "t"
    return " ".join(f"{name}={types[name]}" for name in sorted(types))


def _value_type(value: Value) -> str:
    return "b" if isinstance(value, bool) else "t" if isinstance(value, str) else "n"
