"""The output of `explore`: what would be published, what to change, and how it ends. Pure."""

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from oneweb_bridge.config.file_reader import merge_trees
from oneweb_bridge.encoding import count_text
from oneweb_bridge.explore.context import unknown_members
from oneweb_bridge.explore.evidence import Tree
from oneweb_bridge.explore.explorer import ExploreResult
from oneweb_bridge.explore.reaching import CallResult
from oneweb_bridge.explore.reading import CallReading
from oneweb_bridge.polling.id_matching import matched_kind

_WIDTH, _INDENT = 110, " " * 14
_NOUNS = {
    "user_terminals": "terminals",
    "user_terminal_components": "terminals",
    "products": "products",
    "organizations": "organizations",
    "sites": "sites",
    "usage_consumption": "buckets",
}
_SHOWN = {
    "user_terminals": (("latitude", "a position"), ("state", "a state")),
    "user_terminal_components": (("components", "components"),),
    "products": (("imei", "a terminal"), ("allowance_gb", "an allowance"), ("status", "a status")),
    "organizations": (("name", "a name"),),
    "sites": (("name", "a name"), ("latitude", "a position")),
    "usage_consumption": (("used_gb", "an amount used"), ("remaining_gb", "an amount left")),
}
"""Call -> the fields that its line counts, in words."""


def lines(result: ExploreResult, requests: tuple[int, int]) -> Iterator[str]:
    """The printed lines without the last one. `requests` are those that were sent, and those only tried."""
    for call in result.calls:
        yield ""
        yield from _call(call, result.now)
    for finding in result.findings:
        yield ""
        yield from entry("all calls", finding.text)
        yield from _snippet(finding.change)
    yield ""
    yield from entry("requests", f"{requests[0]} were sent, {requests[1]} of them only to try changes")
    if result.changes:
        yield ""
        yield "All of it, to be pasted into bridge.yaml (keys that are there already: change them, do not repeat them):"
        yield ""
        yield from snippet(result.changes).splitlines()


NOTHING_TO_CHANGE = "Nothing to change in bridge.yaml."


def is_good(result: ExploreResult, *, written: bool = False) -> bool:
    """Whether every enabled call is read in full with the file as it is."""
    return (written or not result.changes) and not unfinished(result)


def unfinished(result: ExploreResult) -> list[str]:
    """The enabled calls that are not read in full, even with all changes."""
    return [call.call.id for call in result.calls if call.call.enabled and not call.is_whole]


def last_line(result: ExploreResult, *, written: bool = False, file: str = "bridge.yaml") -> Iterator[str]:
    """How it ends: nothing to change in the file, changes to make, or the calls that are not read in full."""
    yield ""
    names = unfinished(result)
    if is_good(result, written=written):
        whole = f"Every enabled call is read in full with {file} as it is now."
        yield whole if written else f"Nothing to change in {file}."
        return
    changes = "make the changes above (`--write FILE` does it), run explore again" if result.changes else ""
    if not names:
        yield from _wrapped(f"With these changes every enabled call is read in full: {changes}.")
        return
    counted = f"{len(names)} call{'s are' if len(names) > 1 else ' is'} not read in full"
    advice = f"{changes}, and look" if changes and not written else "look"
    text = f"{counted}: {', '.join(names)}. What to do: {advice} at the lines of {'them' if len(names) > 1 else 'it'}."
    yield from _wrapped(text)


def _wrapped(text: str, head: str = "", indent: str = "") -> list[str]:
    """Lines of the report's width; a path that is longer stays whole, so that it can be copied."""
    wrapper = textwrap.TextWrapper(
        _WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(text)


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


# ── one call ───────────────────────────────────────────────────────────────────────────────────


def _call(result: CallResult, now: int) -> Iterator[str]:
    name, reading = f"{result.call.id}{'' if result.call.enabled else ' (not enabled)'}", result.reading
    yield from entry(name, describe_call(result, now))
    if reading.outcome == "skipped":
        return
    if reading.outcome == "ok":
        unknown = unknown_members(result.call, result.evidence.listed.items if result.evidence.listed else [])
        if result.call.reads == "report":
            unknown = [*(f"{name} (value)" for name in reading.others), *unknown]
        if unknown:
            yield from entry("  unknown", ", ".join(unknown))
    for sentence in unexpected(result):
        yield from entry("  NOT WHOLE", sentence)
    change: Tree = {}
    for finding in result.findings:
        yield from entry("  differs", finding.text)
        change = merge_trees(change, finding.change)
    yield from _snippet(change)


def describe_call(result: CallResult, now: int) -> str:
    """What the bridge would publish of a call, or why it is not reached or not asked."""
    reading = result.reading
    if reading.outcome == "skipped":
        return "not asked: fetch: request sends a POST, and explore only reads. `status` tells how the bridge reads it"
    if reading.outcome == "ok":
        return published(result, now)
    heading = "NOT REACHED" if reading.outcome != "odd" else "NOT READ"
    heading = heading if result.call.enabled else heading.lower()
    other = result.evidence.reply.error
    also = f"; {other}" if other and other not in reading.error and reading.outcome == "odd" else ""
    return f"{heading}: {reading.error}{also}. {_advice(result)}"


def unexpected(result: CallResult) -> Iterator[str]:
    """Why a call that was reached is not read in full, each reason with what to do."""
    reading = result.reading
    yield from (finding.message for finding in reading.findings)
    yield from reading.problems
    yield from result.notes
    if reading.outcome == "ok" and reading.coverage is None:
        key = f"polling.{result.call.id}"
        yield (
            "nothing came, so that nothing could be checked: if there should be records, look at "
            f"{key}.path, query and window, and at the rights of the credentials; "
            f"if there are none, set {key}.enabled: false"
        )


def published(result: CallResult, now: int) -> str:
    """What the bridge would publish of a call."""
    reading = result.reading
    text = _samples(result, now) if result.call.reads == "report" else _records(result.call.id, reading)
    shape = result.evidence.listed.shape if result.evidence.listed else ""
    parts = [text, ", ".join([*([f"in {shape}"] if shape else []), _page_style(result)])]
    if reading.for_some:
        parts.append("asked for the first few ids alone")
    return "; ".join(parts)


def _page_style(result: CallResult) -> str:
    """In which pages it came; `unpaged` is what the bridge finds itself, and remembers as `none`."""
    if result.reading.unpaged:
        return "page style none"
    pages = result.reading.pages
    counted = f" ({pages} pages)" if pages > 1 else ""
    return f"page style {result.call.page.style}{counted}"


def _records(id: str, reading: CallReading) -> str:
    counted = [f"{reading.fields.get(field, 0)} with {words}" for field, words in _SHOWN.get(id, ())]
    everywhere = sum(count == len(reading.records) for count in reading.fields.values())
    rest = f"; {everywhere} fields in all, {len(reading.fields) - everywhere} in some" if reading.records else ""
    return ", ".join([f"{len(reading.records)} {_NOUNS.get(id, 'records')}", *counted]) + rest


def _samples(result: CallResult, now: int) -> str:
    reading, kind = result.reading, matched_kind(result.call) or "terminal"
    text = f"{count_text(reading.samples, 'sample')} for {count_text(len(reading.ids), kind)}"
    fields = [f"{name} {count}" if count < reading.samples else name for name, count in sorted(reading.fields.items())]
    if fields:
        text += f" ({', '.join(fields)})"
    if reading.newest is not None:
        text += f", newest {_minutes(now - reading.newest)} old"
    return text


def _minutes(milliseconds: int) -> str:
    minutes = round(milliseconds / 60_000)
    return f"{minutes} min" if minutes < 180 else f"{minutes / 60:.1f} h"


def _advice(result: CallResult) -> str:
    key = f"polling.{result.call.id}"
    match result.reading.outcome:
        case "refused":
            return "The credentials are good, but not for this API: ask OneWeb for a contract, or set enabled: false"
        case "unknown":
            return (
                f"Is {key}.path ({result.call.path}) right for this API? Other paths were tried without success; "
                f"see also api.base_url and {key}.for_each"
            )
        case "rejected":
            return (
                f"Are {key}.query, {key}.page and {key}.window right? Others were tried without success; a report may "
                f"need {key}.for_each or fetch: request"
            )
        case "away":
            return "Try again; if it stays so, check api.base_url, api.proxy and api.timeout"
        case "busy":
            return "Try again when the pause is over, and set api.rate_limit.max_requests_per_hour"
        case _:
            return f"Check {key}.path, records, key and page, and api.proxy: something else may have answered"


def entry(name: str, text: str) -> Iterator[str]:
    """One entry, its text in a column of its own; a long name has a line for itself."""
    head = f"{name:<14}"
    if len(name) >= len(_INDENT):
        yield name
        head = _INDENT
    yield from _wrapped(text, head, _INDENT)


def _snippet(change: Any) -> Iterator[str]:
    if change:
        yield from textwrap.indent(snippet(change), _INDENT + "  ").splitlines()
