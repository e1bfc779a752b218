"""What the answers to `explore` mean: what is as the configuration says, what is not, and what to change. Pure.

Each judge looks at one kind of call and gives findings: a sentence, and the change of bridge.yaml that
meets it. In the end everything is read again with all changes, by the bridge's own readers: what is shown
as found is what would be published.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import yaml

from oneweb_bridge.config.file_reader import ConfigError
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
from oneweb_bridge.explore.evidence import Evidence, Tree, located
from oneweb_bridge.explore.judge_components import component_places, has_components
from oneweb_bridge.explore.judge_reports import report_places
from oneweb_bridge.explore.judging import Context, Finding, merged, polling, unknown_members
from oneweb_bridge.explore.zones import zone_finding
from oneweb_bridge.model.records import Fields, Sample

__all__ = ["Judged", "Verdict", "component_places", "has_components", "judged", "report_places"]


class Judged(msgspec.Struct, kw_only=True):
    """What is to be said of one call. `fields` counts the records, or samples, that have each field."""

    call: str
    findings: list[Finding] = []
    records: int = 0
    fields: Mapping[str, int] = {}
    missing: list[str] = []
    unknown: list[str] = []
    newest: int | None = None
    period: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """All calls, what concerns none of them alone, and everything to change."""

    calls: list[Judged]
    findings: list[Finding]
    changes: Tree


def judged(seen: Sequence[Evidence], config: Config, changes: Tree) -> Verdict:
    """What the evidence means. `changes` were needed to sign in."""
    context, known = Context.of(seen, config), effective(config)
    calls = [Judged(call=e.call.id, findings=list(_news(_findings(e, context), known))) for e in seen]
    zone = zone_finding(context)
    general = [Finding("the credentials go in headers", changes)] if changes else []
    general += [zone] if zone is not None else []
    for finding in [*general, *(finding for call in calls for finding in call.findings)]:
        changes = _united(changes, finding.change)
    final = _changed(config, changes)
    for evidence, call in zip(seen, calls, strict=True):
        _count(evidence, final.polling[call.call], final, call)
        call.findings += [f for f in (_lateness(evidence, call, context),) if f is not None]
        for finding in call.findings:
            changes = _united(changes, finding.change)
    return Verdict(calls, general, changes)


_JUDGES = {
    "record": judge_records.judge,
    "components": judge_components.judge,
    "report": judge_reports.judge,
    "usage": judge_usage.judge,
}


def _findings(seen: Evidence, context: Context) -> list[Finding]:
    if seen.reply.ended != "ok":
        return []
    if seen.found is None:
        return [Finding("the answer has no list of records: set `records` to its path")]
    found = []
    if seen.found.records is not None:
        below = ".bucket[*]" if any(isinstance(i, dict) and "bucket" in i for i in seen.found.items) else ""
        change = polling(seen, records=seen.found.records + below)
        found.append(Finding(f"the records are in {seen.found.shape}", change))
    if seen.paging.change:
        found.append(Finding(seen.paging.said, polling(seen, page=seen.paging.change)))
    if seen.span.works is False:
        found.append(Finding("time parameters are not heard", polling(seen, window="none")))
    elif seen.span.change:
        found.append(Finding("other time parameters", polling(seen, window=seen.span.change)))
    return found + _JUDGES[seen.call.reads](seen, context)


def _news(findings: Iterable[Finding], known: Tree) -> Iterator[Finding]:
    """The findings without changes that are in force already; those of which nothing is left are left out."""
    for finding in findings:
        change = _unlike(finding.change, known)
        if change or not finding.change:
            yield Finding(finding.text, change)


def _unlike(change: Tree, known: Any) -> Tree:
    found: Tree = {}
    for name, said in change.items():
        there = known.get(name) if isinstance(known, dict) else None
        below = _unlike(said, there) if isinstance(said, dict) and isinstance(there, dict) else said
        if said != there and below != {}:
            found[name] = below if name != "query" else said
    return found


def _united(changes: Tree, change: Tree) -> Tree:
    """Changes with one more. Words of the mapping that several calls found go together."""
    before, after = changes.get("mapping", {}), change.get("mapping", {})
    both = {name: _words(before.get(name), said) for name, said in after.items()}
    return merged(changes, change | ({"mapping": both} if both else {}))


def _words(before: Any, after: Any) -> Any:
    if isinstance(before, list) and isinstance(after, list):
        return list(dict.fromkeys([*before, *after]))
    if isinstance(before, dict) and isinstance(after, dict):
        return {name: _words(before.get(name), said) for name, said in after.items()}
    return after


def _changed(config: Config, changes: Tree) -> Config:
    """The configuration with the changes; without them where they do not go together with what is configured."""
    if not changes:
        return config
    try:
        return parse(yaml.safe_dump(merged(effective(config), changes)), {})
    except ConfigError:
        return config


# ── what would be read ─────────────────────────────────────────────────────────────────────────


def _count(seen: Evidence, call: Call, config: Config, into: Judged) -> None:
    rules = DecodeRules(config.mapping.timezone, tuple(config.mapping.unlimited))
    rows = _rows(seen, call)
    if call.reads == "report":
        sample = sample_decoder(call, rules)
        samples = [found for id, record in rows for found in _samples(sample, id, record)]
        fields = [sample.values for sample in samples]
        into.newest, into.period = _newest(samples), _period(samples)
    else:
        read = record_decoder(call, rules)
        fields = [_fields(read, id, record) for id, record in rows]
    into.records = len(fields)
    known = {field.name for field in call.fields}
    counted = Counter(name for record in fields for name in record)
    strange = [name for name in counted if name not in known] if call.reads == "report" else []
    into.fields = {name: count for name, count in counted.items() if name not in strange}
    if call.reads != "components":
        into.missing = [field.name for field in call.fields if fields and field.name not in counted]
    into.unknown = [f"{name} (value)" for name in strange] + unknown_members(call, [record for _, record in rows])


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
    """Key and record of each record in the answer, as the configuration reads it."""
    body = (seen.windowed or seen.reply).body
    if seen.reply.ended != "ok" or located(body) is None:
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


def _lateness(seen: Evidence, call: Judged, context: Context) -> Finding | None:
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
