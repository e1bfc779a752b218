"""Reads the values at many paths from one record: straight-line code, made once for each call. Pure.

`compile_reader(paths)` gives a function from a record to the values at `paths`, in their order: the same as
`[compile_path(path)(record) for path in paths]`, in a quarter to half of the time. An empty path is the record
itself. A step that several paths have in common is taken once. For

    name, place.id, relatedParty[role=Customer].id, relatedParty[role=Partner].id, product[*].id

it makes

    def read(record):
        v0 = record.get('name') if type(record) is dict else None
        if v0 is None:
            v0 = step0(record)
        v1 = record.get('place') if type(record) is dict else None
        if v1 is None:
            v1 = step1(record)
        v2 = v1.get('id') if type(v1) is dict else None
        if v2 is None and v1 is not None:
            v2 = step2(v1)
        v3 = record.get('relatedParty') if type(record) is dict else None
        if v3 is None:
            v3 = step3(record)
        v4 = group4(v3)
        v5 = v4.get('customer')
        v6 = v5.get('id') if type(v5) is dict else None
        if v6 is None and v5 is not None:
            v6 = step6(v5)
        v7 = v4.get('partner')
        v8 = v7.get('id') if type(v7) is dict else None
        if v8 is None and v7 is not None:
            v8 = step8(v7)
        v9 = record.get('product') if type(record) is dict else None
        if v9 is None:
            v9 = step9(record)
        v10 = step10(v9) if v9 is not None else None
        v11 = v10.get('id') if type(v10) is dict else None
        if v11 is None and v10 is not None:
            v11 = step11(v10)
        return (v0,v2,v6,v8,v11,)

Each line reads the usual form of an answer. In any other form `step` reads it, which is the function of
`paths` for this one step: a member that is written otherwise, a list in place of an object. A `group` has the
elements of a list by the text that several paths look for in the same member. Texts of the configuration stand
in the code by their `repr` alone.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from oneweb_bridge.decode.paths import (
    MAX_NAME_CHARS,
    Step,
    compile_step,
    conditions_of,
    fold_name,
    split_path,
)

ReadPaths = Callable[[Any], Sequence[Any]]
_Prefix = tuple[Step, ...]
MAX_READERS = 128
"""Readers that are kept: `explore` compiles the same paths again for each change that it tries."""


@lru_cache(MAX_READERS)
def compile_reader(paths: tuple[str, ...]) -> ReadPaths:
    """A function from a record to the values at `paths`, in their order. Raises BadPath."""
    source, functions = write_source(paths)
    exec(compile(source, "<path reader>", "exec"), functions)  # noqa: S102 -- our own lines, with texts by their repr
    return functions["read"]  # type: ignore[no-any-return]  # made at run time


def write_source(paths: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The source of the reader of `paths`, and the functions that it calls by their names. Raises BadPath."""
    code = _Code([split_path(path) if path else () for path in paths])
    results = "".join(f"{code.variable_of(steps)}," for steps in code.paths)
    return "\n    ".join(["def read(record):", *code.lines, f"return ({results})"]), code.functions


class PathTable:
    """The paths that the fields of one call read, each once. A field finds its values by their positions."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}

    def position(self, path: str) -> int:
        """Where the value at `path` stands among those that the reader returns; an empty path is the record."""
        return self._positions.setdefault(path.removeprefix("$").lstrip("."), len(self._positions))

    def reader(self) -> ReadPaths:
        """The reader of all paths so far. Raises BadPath."""
        return compile_reader(tuple(self._positions))


class _Code:
    """The lines of `read`, and the functions that they call."""

    def __init__(self, paths: Sequence[_Prefix]) -> None:
        self.paths = paths
        self.lines: list[str] = []
        self.functions: dict[str, Any] = {}
        self._count = 0
        """Of the variables so far."""
        self._variables: dict[_Prefix, str] = {(): "record"}
        self._groups: dict[tuple[str, str], str] = {}
        prefixes = {path[:length] for path in paths for length in range(1, len(path) + 1)}
        members = [(prefix[:-1], member) for prefix in prefixes if (member := _grouped_by(prefix[-1])[0])]
        self._grouped = {group for group in members if members.count(group) > 1}

    def variable_of(self, steps: _Prefix) -> str:
        """The variable that has the value at `steps`, with the lines that set it written before."""
        if steps not in self._variables:
            above = self.variable_of(steps[:-1])
            member, text = _grouped_by(steps[-1])
            if (steps[:-1], member) in self._grouped:
                expression = f"{self._group(above, member)}.get({text!r})"
                self._variables[steps] = self._assign(expression)
            else:
                self._variables[steps] = self._take(steps[-1], above)
        return self._variables[steps]

    def _assign(self, expression: str) -> str:
        variable = f"v{self._count}"
        self._count += 1
        self.lines.append(f"{variable} = {expression}")
        return variable

    def _take(self, step: Step, above: str) -> str:
        """The variable of what is one step below the variable `above`."""
        number = self._count
        self.functions[f"step{number}"] = compile_step(step)
        call = f"step{number}({above})"
        # The first step is taken of any record, a further one of what is there.
        exists = "" if above == "record" else f"{above} is not None"
        if not step.member:
            return self._assign(f"{call} if {exists} else None" if exists else call)
        variable = self._assign(f"{above}.get({step.member!r}) if type({above}) is dict else None")
        self.lines.append(f"if {variable} is None{' and ' if exists else ''}{exists}:")
        self.lines.append(f"    {variable} = {call}")
        return variable

    def _group(self, above: str, member: str) -> str:
        """The variable of the elements of `above` by their `member`."""
        if (above, member) not in self._groups:
            number = self._count
            self.functions[f"group{number}"] = _compile_group(member)
            self._groups[above, member] = self._assign(f"group{number}({above})")
        return self._groups[above, member]


def _grouped_by(step: Step) -> tuple[str, str]:
    """Member and folded text of a step like `[role=Customer]`; two empty texts of any other."""
    conditions = conditions_of(step.selector)
    if len(conditions) == 1 and len(conditions[0].texts) == 1:
        return conditions[0].name, *conditions[0].texts  # type: ignore[return-value]  # it has one text
    return "", ""


def _compile_group(member: str) -> Callable[[Any], dict[str, Any]]:
    """A function from a list to its objects by the folded text of their `member`, the first of each text."""
    get = compile_step(Step(member, ""))

    def group(value: Any) -> dict[str, Any]:
        by_text: dict[str, Any] = {}
        for entry in value if isinstance(value, list) else (value,):
            if type(entry) is dict:
                text = get(entry)
                if type(text) is str and len(text) <= MAX_NAME_CHARS:
                    by_text.setdefault(fold_name(text), entry)
        return by_text

    return group
