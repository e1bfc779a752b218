"""What kind the values of a report are, so that discovery knows which entities there are. Pure."""

from oneweb_bridge.model.records import Fields, Value


def value_types(values: Fields) -> str:
    """The names of values, each with what it is: n(umber), t(ext) or b(ool). Lists are left out."""
    return " ".join(sorted(f"{name}={_value_type(value)}" for name, value in values.items() if type(value) is not list))


def merge_value_types(before: str, after: str) -> str:
    """All names of both; one that is not the same in both is a text from then on, which can show either."""
    found: dict[str, str] = {}
    for part in f"{before} {after}".split():
        name, _, letter = part.partition("=")
        found[name] = letter if found.get(name, letter) == letter else "t"
    return " ".join(f"{name}={found[name]}" for name in sorted(found))


def _value_type(value: Value) -> str:
    return "b" if isinstance(value, bool) else "t" if isinstance(value, str) else "n"
