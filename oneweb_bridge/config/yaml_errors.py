"""What is wrong with the YAML of a configuration file, for people who do not know YAML's own words."""

import re
from collections.abc import Sequence

import yaml

_QUOTE_IT = "put the text in quotes"
_SENTENCES = (
    (r"found character '\\t'", "a tab stands where the line is indented: indentation takes spaces"),
    (r"found character '(.)'", rf"a text cannot begin with '\1': {_QUOTE_IT}"),
    (r"found unexpected end of stream", "the quote that begins here is not closed"),
    (r"found unknown escape character", "a backslash in double quotes stands for something else: use single quotes"),
    (
        r"mapping values are not allowed here",
        "a key with ':' cannot stand here: indent it like its neighbours, or put a value with ': ' in quotes",
    ),
    (r"could not find expected ':'", "expected ':' and a space after the key"),
    (
        r"expected <block end>, but found '<scalar>'",
        "something follows the end of a value: a quote inside single quotes is written twice",
    ),
    (
        r"expected <block end>",
        "the indentation does not fit: all keys of a section, and all entries of a list, begin in the same column",
    ),
    (r"but found '<stream end>'", "the file ends here, and a brace or bracket in this line or above is not closed"),
    (r"but got '<stream end>'", "the brace or bracket that begins here is not closed"),
    (r"expected ',' or '(.)'", r"expected a comma or the closing '\1'"),
    (r"expected the node content", f"expected a value: where it begins with a sign of YAML, {_QUOTE_IT}"),
    (r"chomping or indentation", f"a text cannot begin with '>' or '|': {_QUOTE_IT}"),
)
"""Patterns of PyYAML's problems -> what a user did, and what to do."""


def describe_yaml_error(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> str:
    """The line and what is wrong, without the text in that place: it may be a password that begins with '*' or '!'."""
    problem = error.problem or "is not YAML"
    number = _line_of(error, problem)
    return f"line {number + 1}: {_sentence(problem, ''.join(lines[number : number + 1]))}"


def _line_of(error: yaml.MarkedYAMLError, problem: str) -> int:
    """Where it begins: what is not closed is noticed at the end of the file only."""
    is_unclosed = "stream end" in problem or "end of stream" in problem
    mark = (error.context_mark if is_unclosed else None) or error.problem_mark
    return mark.line if mark else 0


def _sentence(problem: str, line: str) -> str:
    if problem.startswith(("found undefined", "could not determine")):
        return "a text that begins with '*', '&' or '!' must be in quotes"
    if "${" in line and "\\t" not in problem:
        return "inside braces and brackets, '${NAME}' must be in quotes, and every brace must be closed"
    for pattern, sentence in _SENTENCES:
        if match := re.search(pattern, problem):
            return match.expand(sentence)
    return problem
