"""Patterns over text from outside: none takes more than linear time, however long and however mean the text is."""

import ast
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import oneweb_bridge
from oneweb_bridge.config import schema, yaml_errors
from oneweb_bridge.decode import values
from oneweb_bridge.decode.pages import split_page
from oneweb_bridge.decode.paths import compile_path
from oneweb_bridge.explore import guesses, judge_usage, spans
from oneweb_bridge.model import status

ROOT = Path(oneweb_bridge.__file__).parent
LENGTH = 20_000
CPU_SECONDS = 60
"""Many times what all patterns take on all texts; one of quadratic time takes seconds for each of its texts."""
ANCHORED = {"match", "fullmatch", "pattern"}
"""Functions that begin at the beginning alone; `pattern` is that of one that stands within another."""


MADE: dict[tuple[str, str], Sequence[str]] = {
    ("config/masks.py", "'|'.join((re.escape(form) for form in ordered))"): ["secret|se.cret|s"],
    ("config/masks.py", "b'|'.join((re.escape(form.encode()) for form in ordered))"): ["secret|se.cret|s"],
    ("config/schema.py", r"f'^{_LISTEN.pattern}\\Z'"): [rf"^{schema._LISTEN.pattern}\Z"],
    ("config/schema.py", r"f'^{_HOST_AND_PORT.pattern}\\Z'"): [rf"^{schema._HOST_AND_PORT.pattern}\Z"],
    ("config/yaml_errors.py", "pattern"): [pattern for pattern, _ in yaml_errors._SENTENCES],
    ("explore/guesses.py", "f'(?<![a-z0-9]){phrase}(?![a-z0-9])'"): [
        f"(?<![a-z0-9]){phrase}(?![a-z0-9])" for phrase in guesses._PHRASES
    ],
    ("explore/judge_usage.py", "old"): [old for old, _ in judge_usage._MOVES],
    ("explore/spans.py", "_HINTS[format_]"): list(spans._HINTS.values()),
    ("model/forecast.py", "TIME"): [status.TIME],
    ("model/status.py", "TIME"): [status.TIME],
}
"""A module and what it gives to `re` where that is no text in that place -> the patterns that come of it."""


class Pattern(NamedTuple):
    """A pattern as it stands in a module, and the functions that it is tried with there."""

    module: str
    pattern: str | bytes
    functions: frozenset[str]


def written_patterns(module: str, tree: ast.Module) -> Iterator[Pattern]:
    """The patterns of a module: of calls of `re`, and of msgspec's Meta, which searches."""
    used: dict[str, set[str]] = {}
    names: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.setdefault(node.value.id, set()).add(node.attr)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.value] = node.targets[0].id
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        uses = [(keyword.value, {"search"}) for keyword in node.keywords if keyword.arg == "pattern"]
        function = node.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re":
            functions = used.get(names.get(node, ""), {"search"}) if function.attr == "compile" else {function.attr}
            uses += [(argument, functions) for argument in node.args[:1] if function.attr != "escape"]
        for argument, functions in uses:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, (str, bytes)):
                yield Pattern(module, argument.value, frozenset(functions))
            elif not isinstance(argument, ast.Constant):
                # Where it is made of others they are searched for, which is the most that can be done with them.
                for pattern in made_patterns(module, argument):
                    yield Pattern(module, pattern, frozenset({"search"}))


def made_patterns(module: str, argument: ast.expr) -> Sequence[str]:
    """The patterns that an expression gives. Fails for one that MADE does not know."""
    for (known, text), patterns in MADE.items():
        if known == module and ast.dump(ast.parse(text, mode="eval").body) == ast.dump(argument):
            return patterns
    raise AssertionError(f"{module}: say in MADE which patterns {ast.unparse(argument)!r} gives")


def all_patterns() -> list[Pattern]:
    """Those of every module but the simulated API, which reads nothing but our own requests."""
    return [
        pattern
        for path in sorted(ROOT.rglob("*.py"))
        if "simulator" not in path.parts
        for pattern in written_patterns(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
    ]


def mean_texts(pattern: str, length: int = LENGTH) -> Iterator[str]:
    """Long texts of the letters that a pattern is about, each with something before, and something that fits not."""
    characters = dict.fromkeys([*re.sub(r"\\[a-zA-Z]|[()*+?{}^$|]", "", pattern).replace("\\", ""), *"1a "])
    pumps = [*characters, *(f"{first}{other}" for first in '<" 1a.' for other in characters)]
    for pump in pumps:
        for before in ("", "1", "<", '"', "+"):
            yield before + pump * (length // len(pump)) + "_\0"


def try_all() -> None:
    """Tries every pattern with every text; says before which it is, so that one that never ends is known."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    for module, pattern, functions in all_patterns():
        print(module, repr(pattern), *functions, flush=True)
        compiled: re.Pattern[Any] = re.compile(pattern)
        for text in mean_texts(pattern if isinstance(pattern, str) else pattern.decode()):
            subject: Any = text.encode() if isinstance(pattern, bytes) else text
            compiled.fullmatch(subject)
            if not functions <= ANCHORED:
                compiled.search(subject)


def test_patterns_are_found() -> None:
    """The collection sees patterns of all kinds: compiled ones, those in a call, of a struct, and from a table."""
    modules = {pattern.module for pattern in all_patterns()}
    assert {
        "decode/values.py",
        "decode/pages.py",
        "decode/paths.py",
        "config/schema.py",
        "config/units.py",
        "explore/redaction.py",
    } <= modules
    assert {module for module, _ in MADE} <= modules
    assert len(all_patterns()) > 20


def test_every_pattern_is_linear() -> None:
    """In a process that may use the processor for CPU_SECONDS, every pattern comes to an end with every long text."""
    done = subprocess.run(
        [sys.executable, "-c", "from tests import test_patterns; test_patterns.try_all()"],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"never ended: {done.stdout.splitlines()[-1:]} {done.stderr[-500:]}"


@pytest.mark.parametrize("text", ["1" + 1_000_000 * " " + "_", "1 " * 500_000, "a" * 1_000_000, "1" * 1_000_000])
def test_value_of_a_megabyte_is_no_value(text: str) -> None:
    """A text that is too long to be a number, a time or a name is not looked at."""
    for read in (values.parse_quantity, values.parse_time, values.parse_word):
        with pytest.raises(values.Unparseable):
            read(text)
    assert values.snake(text) == ""


def test_text_of_a_megabyte_is_taken_apart() -> None:
    """Texts that may be long (a body, a component's name) are read whole, in one pass."""
    assert compile_path("name[:0]")({"name": "a." * 500_000}) == "a"
    body = b'["' + b"\\ud800" * 200_000 + b'"]'
    assert len(split_page(body).records) == 1
