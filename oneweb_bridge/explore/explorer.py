"""Explores one call after the other: reads it as the bridge does, and where that is not whole, tries what mends it.

A change is accepted only when the call is read better with it. What worked for a call is tried first for the others.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.explore import findings, judge_components, spans
from oneweb_bridge.explore.client import ExploreApi, TrialsUsedUp
from oneweb_bridge.explore.context import Context, Finding
from oneweb_bridge.explore.evidence import Evidence, Reply, Tree, find_list
from oneweb_bridge.explore.reaching import CallReacher, CallResult
from oneweb_bridge.explore.reading import CallReading, sample_period
from oneweb_bridge.explore.trials import Trials, improves, is_no_worse, with_change


class ExploreResult(msgspec.Struct, frozen=True):
    """The results of all calls, the findings about all of them, and all changes together. `now` is the API's clock.

    `config` is the configuration with the changes.
    """

    calls: list[CallResult]
    findings: list[Finding]
    changes: Tree
    now: int
    config: Config


class Explorer:
    """One exploration of all calls."""

    def __init__(self, api: ExploreApi, config: Config, changes: Tree) -> None:
        self._api = api
        self._config = config
        self._trials = Trials(api, config, changes)
        self._signing_in = [Finding("the API is signed in to in another way", changes)] if changes else []
        self._results: dict[str, CallResult] = {}
        self._reacher = CallReacher(api, self._trials)
        self._must_read_again = False
        """Whether something that concerns several calls has changed since they were read."""

    async def explore(self, show_progress: Any = lambda _: None) -> ExploreResult:
        """All calls: first how they are reached, then what is in their answers."""
        for id in self._config.polling:
            show_progress(f"asking {id} …")
            self._results[id] = await self._explore_call(id)
            self._note_inventory(id)
        context = Context.of([result.evidence for result in self._results.values()], self._configured())
        general = [*self._signing_in, *await self._mend_all(context)]
        for id, result in self._results.items():
            show_progress(f"trying changes of {id} …")
            await self._mend(id, result, context)
            self._note_inventory(id)
        for id, result in self._results.items():
            if result.reading.outcome != "skipped":
                result.reading = await self._trials.read(id) or result.reading
            result.call = self._configured().polling[id]
        results = list(self._results.values())
        return ExploreResult(results, general, self._trials.changes, self._api.now(), self._configured())

    def _configured(self) -> Config:
        return self._trials.config() or self._config

    def _call(self, id: str) -> Call:
        return self._trials.call(id)

    def _note_inventory(self, id: str) -> None:
        """Takes over the terminals or products that were read: the ids of reports are compared with them."""
        kind = {"user_terminals": "terminal", "products": "product"}.get(id)
        if kind is not None and self._results[id].reading.records:
            before, known = self._trials.inventory.get(kind, {}), dict(self._results[id].reading.records)
            self._must_read_again = self._must_read_again or (bool(before) and before.keys() != known.keys())
            self._trials.inventory[kind] = known

    # ── reaching a call ────────────────────────────────────────────────────────────────────────

    async def _explore_call(self, id: str) -> CallResult:
        if self._call(id).fetch == "request":
            return _skipped(self._call(id))
        reading = await self._trials.read(id)
        if reading is None:
            raise AssertionError("unreachable: the configuration itself is allowed")
        evidence = Evidence(call=self._call(id), reply=Reply(outcome=reading.outcome, error=reading.error))
        result = CallResult(call=self._call(id), as_configured=reading, reading=reading, evidence=evidence)
        self._trials.start_counting()
        try:
            await self._reacher.reach(id, result)
        except TrialsUsedUp:
            self._trials.used_up.add(id)
        finally:
            self._trials.stop_counting()
        await self._gather(id, result)
        return result

    # ── what is in the answers ─────────────────────────────────────────────────────────────────

    async def _gather(self, id: str, result: CallResult) -> None:
        """The answers that the judges look at."""
        call = self._call(id)
        result.evidence.call = call
        try:
            result.evidence.reply = await self._reacher.first_reply(call)
            if call.window is not None and not call.window.required:
                attempt = next(iter(spans.attempts(call, self._api.now(), {})))
                result.evidence.windowed = await self._reacher.ask(call, {**call.query, **attempt.params})
        except TrialsUsedUp:
            self._trials.used_up.add(id)
        windowed = result.evidence.windowed
        if windowed is not None and (windowed.outcome != "ok" or find_list(windowed.body) is None):
            result.evidence.windowed = None
        result.evidence.listed = find_list(result.evidence.reply.body)

    async def _mend(self, id: str, result: CallResult, context: Context) -> None:
        """Tries what the judges propose for one call."""
        if self._call(id).fetch == "request":
            return
        if self._must_read_again:
            result.reading = await self._trials.read(id) or result.reading
        self._trials.start_counting()
        try:
            if self._call(id).reads == "components":
                await self._look_for_components(id, result)
            result.evidence.call = self._call(id)
            for finding in await self._without_doubtful(id, result, findings.judge(result.evidence, context)):
                await self._try_finding(id, result, finding)
            if not result.reading.is_whole:
                remedies = list(findings.remedies(result.evidence, result.reading, self._trials.inventory))
                for finding in await self._without_doubtful(id, result, remedies):
                    await self._try_finding(id, result, finding)
            late = self._late(id, result)
            if late is not None:
                await self._try_finding(id, result, late)
        except TrialsUsedUp:
            self._trials.used_up.add(id)
        finally:
            self._trials.stop_counting()
        if id in self._trials.used_up and not result.is_whole:
            result.notes.append("more could have been tried, but its requests were used up: run explore again later")

    def _late(self, id: str, result: CallResult) -> Finding | None:
        if self._call(id).reads != "report":
            return None
        body = (result.evidence.windowed or result.evidence.reply).body
        period = sample_period(self._trials.plan(id), body)
        return findings.lateness(self._call(id), result.reading, period, self._api.now())

    async def _try_finding(self, id: str, result: CallResult, finding: Finding) -> None:
        """Tries a finding's change; of a map that does not read better as a whole each field alone."""
        for part in findings.parts_of(finding):
            change = findings.different_keys(part.change, self._trials.effective())
            if not change:
                continue
            is_acceptable = improves if part.must_improve else is_no_worse
            reading = await self._trials.try_change(id, change, result.reading, is_acceptable)
            if reading is not None:
                result.reading = reading
                result.findings.append(replace(part, change=change))
                if part is not finding:
                    continue
                return

    async def _without_doubtful(self, id: str, result: CallResult, remedies: list[Finding]) -> list[Finding]:
        """The remedies, of alternatives those that alone read better than what is in force."""
        good: dict[str, list[Finding]] = {}
        for finding in remedies:
            if finding.alternative:
                after = await self._trials.read(id, with_change(self._trials.changes, finding.change))
                if after is not None and improves(after, result.reading):
                    good.setdefault(finding.alternative, []).append(finding)
        alone = [findings_[0] for findings_ in good.values() if len(findings_) == 1]
        return [finding for finding in remedies if not finding.alternative or finding in alone]

    async def _look_for_components(self, id: str, result: CallResult) -> None:
        """Other places of the components: other attributes, all attributes, a path of their own."""
        call, evidence = self._call(id), result.evidence
        if result.reading.is_whole or judge_components.has_components(_items(evidence.reply)):
            return
        for path, query in judge_components.component_places(call):
            reply = await self._reacher.ask(replace(call, path=path, query=query), dict(query))
            if reply.outcome == "ok" and judge_components.has_components(_items(reply)):
                changes = ({"path": path} if path != call.path else {}) | {"query": dict(query)}
                other = replace(call, path=path)
                moved = await self._reacher.ask(other, dict(query)) if path != call.path else reply
                result.evidence = Evidence(call=call, reply=moved, changes=changes, listed=find_list(moved.body))
                return

    async def _mend_all(self, context: Context) -> list[Finding]:
        """What concerns all calls."""
        accepted = []
        for finding in findings.general(context):
            change = findings.different_keys(finding.change, self._trials.effective())
            results = [result for result in self._results.values() if result.reading.outcome == "ok"]
            if change and results:
                reading = await self._trials.try_change(results[0].call.id, change, results[0].reading, is_no_worse)
                accepted += [replace(finding, change=change)] if reading is not None else []
        # Before the calls are looked at: a zone that is wrong looks like reports that are late.
        self._must_read_again = self._must_read_again or bool(accepted)
        return accepted


def _skipped(call: Call) -> CallResult:
    """A call that is not asked: with `fetch: request` the bridge sends a POST, and explore only reads."""
    reading = CallReading(outcome="skipped")
    evidence = Evidence(call=call, reply=Reply(outcome="skipped"))
    return CallResult(call=call, as_configured=reading, reading=reading, evidence=evidence)


def _items(reply: Reply) -> list[Any]:
    listed = find_list(reply.body) if reply.outcome == "ok" else None
    return listed.items if listed else []
