"""The output of `explore`: short, aligned, and without what is as expected. Pure."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from oneweb_bridge.config.file_reader import merge_trees
from oneweb_bridge.explore.evidence import Evidence, Tree
from oneweb_bridge.explore.findings import CallFindings, ExploreResult

_WIDTH, _INDENT = 110, " " * 14


def lines(seen: Sequence[Evidence], result: ExploreResult) -> Iterator[str]:
    """The printed lines, ending with the changes to paste."""
    for evidence, call in zip(seen, result.calls, strict=True):
        yield ""
        yield from _call(evidence, call)
    for finding in result.findings:
        yield ""
        yield from entry("all calls", finding.text)
        yield from _snippet(finding.change)
    yield ""
    if result.changes:
        yield "All of it, to be pasted into bridge.yaml (keys that are there already: change them, do not repeat them):"
        yield ""
        yield from snippet(result.changes).splitlines()
    else:
        yield "Nothing to change in bridge.yaml."


def snippet(changes: Tree) -> str:
    """Changes as YAML that bridge.yaml takes: on one line what fits there, below the names of calls."""
    return "\n".join(_yaml_lines(changes, 0)) + "\n"


def _yaml_lines(changes: Tree, depth: int) -> Iterator[str]:
    for name, value in changes.items():
        head = f"{'  ' * depth}{_flow(name)}:"
        long = len(head) + len(_flow(value)) > _WIDTH - len(_INDENT) - 4
        if isinstance(value, dict) and (depth == 0 or long):
            yield head
            yield from _yaml_lines(value, depth + 1)
        elif isinstance(value, list) and long:
            yield head
            yield from (f"{'  ' * depth}  - {_flow(entry)}" for entry in value)
        else:
            yield f"{head} {_flow(value)}"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()


def _call(seen: Evidence, call: CallFindings) -> Iterator[str]:
    name = f"{call.call}{'' if seen.call.enabled else ' (not enabled)'}"
    if seen.reply.outcome == "skipped":
        yield from entry(name, "not asked: fetch: request sends a POST, and explore only reads")
        return
    if seen.reply.outcome != "ok":
        yield from entry(name, f"NOT REACHED: {seen.reply.error}. {_advice(seen)}")
        return
    yield from entry(name, _came(seen, call))
    if call.fields:
        yield from entry("  fields", _fields(call))
    if call.missing:
        yield from entry("  missing", ", ".join(call.missing))
    if call.unknown:
        yield from entry("  unknown", ", ".join(call.unknown))
    if not seen.paging.change and seen.paging.how == "":
        yield from entry("  pages", seen.paging.text or "not tried")
    change: Tree = {}
    for finding in call.findings:
        yield from entry("  differs", finding.text)
        change = merge_trees(change, finding.change)
    yield from _snippet(change)


def _came(seen: Evidence, call: CallFindings) -> str:
    items = len(seen.listed.items) if seen.listed else 0
    parts = [f"{items} items in {seen.listed.shape}" if seen.listed else "no list of records"]
    if seen.reply.total is not None:
        parts.append(f"{seen.reply.total} in all")
    if seen.paging.how:
        parts.append(f"pages: {seen.paging.how}")
    if call.newest is not None and seen.reply.time is not None:
        parts.append(f"newest sample {_minutes(seen.reply.time - call.newest)} old")
    return ", ".join(parts)


def _minutes(milliseconds: int) -> str:
    minutes = round(milliseconds / 60_000)
    return f"{minutes} min" if minutes < 180 else f"{minutes / 60:.1f} h"


def _fields(call: CallFindings) -> str:
    """The fields that all records have as a number, the others one by one."""
    everywhere = [name for name, count in call.fields.items() if count == call.records]
    some = [f"{name} {count}" for name, count in call.fields.items() if count < call.records]
    text = f"{len(everywhere)} in all {call.records} {'samples' if call.newest else 'records'}"
    return text + (f"; in some: {', '.join(some)}" if some else "")


def _advice(seen: Evidence) -> str:
    key = f"polling.{seen.call.id}"
    match seen.reply.outcome:
        case "refused":
            return "The credentials are good, but not for this API: ask OneWeb for a contract, or set enabled: false"
        case "unknown":
            return f"Is {key}.path ({seen.call.path}) right for this API? Also api.base_url and {key}.for_each"
        case "rejected":
            return f"Are {key}.query and {key}.window right? A report may need {key}.for_each or fetch: request"
        case "away":
            return "Try again; if it stays so, check api.base_url, api.proxy and api.timeout"
        case "busy":
            return "Try again when the pause is over, and set api.rate_limit.max_requests_per_hour"
        case _:
            return f"Check {key}.path and api.proxy: something else than the API may have answered"


def entry(name: str, text: str) -> Iterator[str]:
    """One entry, its text in a column of its own; a long name has a line for itself."""
    head = f"{name:<14}"
    if len(name) >= len(_INDENT):
        yield name
        head = _INDENT
    yield from textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=_INDENT, break_on_hyphens=False)


def _snippet(change: Any) -> Iterator[str]:
    if change:
        yield from textwrap.indent(snippet(change), _INDENT + "  ").splitlines()
