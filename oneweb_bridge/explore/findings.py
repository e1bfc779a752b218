"""Finds out from the answers to `explore` where the API differs from the configuration, and what to change. Pure.

Each judge examines one kind of call and gives findings: a sentence, and the change of bridge.yaml for it.
At the end all answers are decoded again with all changes, by the bridge's own decoders: the counted fields
are those that would be published.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import yaml

from oneweb_bridge.config.file_reader import ConfigError, merge_trees
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.write import effective
from oneweb_bridge.decode import record_hashes
from oneweb_bridge.decode.border import BadPage, Unreadable
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.fields import DecodeRules
from oneweb_bridge.decode.pages import decode_record, expand_tables, merge_rows, merges_rows, split_page
from oneweb_bridge.decode.records import KEYS, record_decoder
from oneweb_bridge.decode.samples import Measured, sample_decoder
from oneweb_bridge.explore import judge_components, judge_records, judge_reports, judge_usage
from oneweb_bridge.explore.context import Context, Finding, polling, unknown_members
from oneweb_bridge.explore.evidence import Evidence, Tree, find_list
from oneweb_bridge.explore.judge_components import component_places, has_components
from oneweb_bridge.explore.judge_reports import report_places
from oneweb_bridge.explore.zones import zone_finding
from oneweb_bridge.model.records import Fields, Sample

__all__ = ["CallFindings", "ExploreResult", "component_places", "has_components", "judge_all", "report_places"]


class CallFindings(msgspec.Struct, kw_only=True):
    """The result for one call. `fields` counts the records, or samples, that have each field."""

    call: str
    findings: list[Finding] = []
    records: int = 0
    fields: Mapping[str, int] = {}
    missing: list[str] = []
    unknown: list[str] = []
    newest: int | None = None
    period: int = 0


class ExploreResult(msgspec.Struct, frozen=True):
    """The results of all calls, the findings about all of them, and all changes together."""

    calls: list[CallFindings]
    findings: list[Finding]
    changes: Tree


def judge_all(seen: Sequence[Evidence], config: Config, changes: Tree) -> ExploreResult:
    """The result of all evidence. `changes` were needed to sign in."""
    context, known = Context.of(seen, config), effective(config)
    calls = [
        CallFindings(call=e.call.id, findings=list(_not_yet_configured(_findings(e, context), known))) for e in seen
    ]
    zone = zone_finding(context)
    general = [Finding("the credentials go in headers", changes)] if changes else []
    general += [zone] if zone is not None else []
    for finding in [*general, *(finding for call in calls for finding in call.findings)]:
        changes = _with_change(changes, finding.change)
    final = _apply_changes(config, changes)
    for evidence, call in zip(seen, calls, strict=True):
        _count(evidence, final.polling[call.call], final, call)
        call.findings += [f for f in (_lateness(evidence, call, context),) if f is not None]
        for finding in call.findings:
            changes = _with_change(changes, finding.change)
    return ExploreResult(calls, general, changes)


_JUDGES = {
    "record": judge_records.judge,
    "components": judge_components.judge,
    "report": judge_reports.judge,
    "usage": judge_usage.judge,
}


def _findings(seen: Evidence, context: Context) -> list[Finding]:
    if seen.reply.outcome != "ok":
        return []
    if seen.listed is None:
        return [Finding("the answer has no list of records: set `records` to its path")]
    findings = []
    if seen.listed.records is not None:
        below = ".bucket[*]" if any(isinstance(i, dict) and "bucket" in i for i in seen.listed.items) else ""
        change = polling(seen, records=seen.listed.records + below)
        findings.append(Finding(f"the records are in {seen.listed.shape}", change))
    if seen.paging.change:
        findings.append(Finding(seen.paging.text, polling(seen, page=seen.paging.change)))
    if seen.span.works is False:
        findings.append(Finding("time parameters are not heard", polling(seen, window="none")))
    elif seen.span.change:
        findings.append(Finding("other time parameters", polling(seen, window=seen.span.change)))
    return findings + _JUDGES[seen.call.reads](seen, context)


def _not_yet_configured(findings: Iterable[Finding], known: Tree) -> Iterator[Finding]:
    """The findings without changes that are in force already. A finding that loses all its changes is left out."""
    for finding in findings:
        change = _different_keys(finding.change, known)
        if change or not finding.change:
            yield Finding(finding.text, change)


def _different_keys(change: Tree, known: Any) -> Tree:
    different: Tree = {}
    for name, value in change.items():
        configured = known.get(name) if isinstance(known, dict) else None
        below = (
            _different_keys(value, configured) if isinstance(value, dict) and isinstance(configured, dict) else value
        )
        if value != configured and below != {}:
            different[name] = below if name != "query" else value
    return different


def _with_change(changes: Tree, change: Tree) -> Tree:
    """The changes with one more. Texts of the mapping that several calls need are joined."""
    before, after = changes.get("mapping", {}), change.get("mapping", {})
    both = {name: _join_texts(before.get(name), value) for name, value in after.items()}
    joined: Tree = merge_trees(changes, change | ({"mapping": both} if both else {}))
    return joined


def _join_texts(before: Any, after: Any) -> Any:
    if isinstance(before, list) and isinstance(after, list):
        return list(dict.fromkeys([*before, *after]))
    if isinstance(before, dict) and isinstance(after, dict):
        return {name: _join_texts(before.get(name), value) for name, value in after.items()}
    return after


def _apply_changes(config: Config, changes: Tree) -> Config:
    """The configuration with the changes; without them where the result would be refused."""
    if not changes:
        return config
    try:
        return parse(yaml.safe_dump(merge_trees(effective(config), changes)), {})
    except ConfigError:
        return config


# ── what would be read ─────────────────────────────────────────────────────────────────────────


def _count(seen: Evidence, call: Call, config: Config, result: CallFindings) -> None:
    rules = DecodeRules(config.mapping.timezone, tuple(config.mapping.unlimited))
    rows = _rows(seen, call)
    if call.reads == "report":
        sample = sample_decoder(call, rules)
        samples = [measurement for id, record in rows for measurement in _samples(sample, id, record)]
        fields = [sample.values for sample in samples]
        result.newest, result.period = _newest(samples), _period(samples)
    else:
        read = record_decoder(call, rules)
        fields = [_fields(read, id, record) for id, record in rows]
    result.records = len(fields)
    known = {field.name for field in call.fields}
    counted = Counter(name for record in fields for name in record)
    strange = [name for name in counted if name not in known] if call.reads == "report" else []
    result.fields = {name: count for name, count in counted.items() if name not in strange}
    if call.reads != "components":
        result.missing = [field.name for field in call.fields if fields and field.name not in counted]
    result.unknown = [f"{name} (value)" for name in strange] + unknown_members(call, [record for _, record in rows])


def _fields(read: Any, id: str, record: Any) -> Fields:
    try:
        reading = read(id, record)
    except Unreadable:
        return {}
    return {name: value for name, value in reading.fields.items() if name != KEYS[reading.kind]}


def _samples(sample: Callable[[str, Any], Measured], id: str, record: Any) -> list[Sample]:
    try:
        return sample(id, record).samples
    except Unreadable:
        return []


def _newest(samples: Iterable[Sample]) -> int | None:
    return max((sample.ts for sample in samples if sample.ts is not None), default=None)


def _period(samples: Iterable[Sample]) -> int:
    """The usual time in ms between two samples of one id; 0 when it cannot be told."""
    times: dict[str, list[int]] = {}
    for sample in samples:
        times.setdefault(sample.id, []).append(sample.ts or 0)
    gaps = sorted(after - before for own in times.values() for before, after in pairwise(sorted(own)))
    return gaps[len(gaps) // 2] if gaps else 0


def _rows(seen: Evidence, call: Call) -> list[tuple[str, Any]]:
    """Key and decoded JSON of each record in the answer, by the configuration."""
    body = (seen.windowed or seen.reply).body
    if seen.reply.outcome != "ok" or find_list(body) is None:
        return []
    key, by_key = record_hashes.key_reader(call), dict[str, list[msgspec.Raw]]()
    try:
        records = expand_tables(call, split_page(msgspec.json.encode(body), call.records).records)
    except BadPage:
        return []
    for raw in records:
        with contextlib.suppress(Unreadable):
            by_key.setdefault(key(raw), []).append(raw)
    gathered, rows = merges_rows(call), []
    for id, raws in by_key.items():
        with contextlib.suppress(Unreadable):
            rows.append((id, decode_record(merge_rows(raws) if gathered else raws[0])))
    return rows


def _lateness(seen: Evidence, call: CallFindings, context: Context) -> Finding | None:
    """A report that comes much later than configured needs more lateness, and spans that reach back further."""
    if call.newest is None or not context.now or not call.period:
        return None
    late = (context.now - call.newest) / 1000
    # A sample that is about to be followed by the next one is a period older than when it came.
    if late <= seen.call.lateness + call.period / 1000 + 600:
        return None
    minutes = -(-round(late) // 600) * 10
    change: Tree = {"lateness": f"{minutes}m"}
    if seen.call.window and seen.call.window.length < 2 * minutes * 60:
        change["window"] = {"length": f"{2 * minutes}m"}
    return Finding(f"the newest sample is {minutes} minutes old", polling(seen, **change))
