"""Tries changes of the configuration: what the bridge would read with them, compared with what it reads without."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from oneweb_bridge.config.file_reader import ConfigError, merge_trees
from oneweb_bridge.config.read import read_values, with_call
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.write import effective
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.explore.client import MAX_TRIALS, ExploreApi, TrialsUsedUp
from oneweb_bridge.explore.evidence import Tree
from oneweb_bridge.explore.reading import CallReading, read_call
from oneweb_bridge.model.records import Fields
from oneweb_bridge.polling.compiled_call import CompiledCall, compile_call


class Trials:
    """The changes that were accepted so far, and what is read with them."""

    def __init__(self, api: ExploreApi, config: Config, changes: Tree) -> None:
        self.api = api
        self.changes = changes
        self.inventory: dict[str, dict[str, Fields]] = {}
        self.used_up: set[str] = set()
        """Calls for which more could have been tried."""
        self._config = config
        self._effective = effective(config)
        self._base = _without_default_paths(self._effective)
        self._plans: dict[bytes, CompiledCall] = {}
        self._configs: dict[bytes, Config | None] = {}

    def config(self, changes: Tree | None = None) -> Config | None:
        """The configuration with changes, by default with those that were accepted; None where they are not allowed."""
        changes = self.changes if changes is None else changes
        key = msgspec.json.encode(changes)
        if key not in self._configs:
            self._configs[key] = self._changed(changes)
        return self._configs[key]

    def plan(self, id: str, config: Config | None = None) -> CompiledCall:
        """A call compiled under a configuration, by default with the accepted changes."""
        config = config or self.config() or self._config
        key = msgspec.msgpack.encode((config.polling[id], config.mapping))
        if key not in self._plans:
            self._plans[key] = compile_call(config.polling[id], config)
        return self._plans[key]

    def call(self, id: str) -> Call:
        """A call with the accepted changes."""
        return (self.config() or self._config).polling[id]

    def effective(self) -> Tree:
        """The configuration with the accepted changes, in the file's form."""
        merged: Tree = merge_trees(self._effective, self.changes)
        return merged

    def _changed(self, changes: Tree) -> Config | None:
        if not changes:
            return self._config
        calls = [
            id for id, keys in changes.get("polling", {}).items() if self.changes.get("polling", {}).get(id) != keys
        ]
        try:
            if len(calls) == 1 and self.changes != changes and _without_calls(changes) == _without_calls(self.changes):
                # Of all calls only one is another: that alone is read anew.
                call = merge_trees(self._base["polling"][calls[0]], changes["polling"][calls[0]])
                return with_call(self.config() or self._config, calls[0], _texts(call))
            changed = read_values(_texts(merge_trees(self._base, changes)))
        except ConfigError:
            return None
        auth = replace(self._config.api.auth, style=changed.api.auth.style)
        # Secrets are masked in what the changes were merged with.
        return replace(changed, api=replace(self._config.api, auth=auth, hello=changed.api.hello))

    async def read(self, call: str, changes: Tree | None = None) -> CallReading | None:
        """What is read of a call with changes; None where they are not allowed. Raises TrialsUsedUp."""
        config = self.config(changes)
        return None if config is None else await read_call(self.api, self.plan(call, config), self.inventory)

    async def try_change(
        self, call: str, change: Tree, before: CallReading, is_acceptable: Callable[[CallReading, CallReading], bool]
    ) -> CallReading | None:
        """Accepts a change where what is read with it is acceptable, compared with what was before; else None."""
        changes = with_change(self.changes, change)
        try:
            after = await self.read(call, changes)
        except TrialsUsedUp:
            self.used_up.add(call)
            return None
        if after is None or not is_acceptable(after, before):
            return None
        self.changes = changes
        return after

    def start_counting(self) -> None:
        """From now on each request counts against MAX_TRIALS."""
        self.api.trials = MAX_TRIALS

    def stop_counting(self) -> None:
        """From now on requests are those that the bridge itself sends, and do not count."""
        self.api.trials = None


def _without_calls(changes: Tree) -> Tree:
    return {name: keys for name, keys in changes.items() if name != "polling"}


def _without_default_paths(tree: Tree) -> Tree:
    """A configuration without the entries of its maps that are those of the catalogue.

    Roles and the order of coordinates are in these paths already: with others of them the paths are made anew.
    """
    default = effective(read_values(_texts({"mapping": tree["mapping"]})))["polling"]
    polling = {
        id: call
        | {"map": {name: entry for name, entry in call["map"].items() if entry != default[id]["map"].get(name)}}
        for id, call in tree["polling"].items()
    }
    return tree | {"polling": polling}


def _texts(value: Any) -> Any:
    """A tree with its scalars as texts, as a file has them."""
    if isinstance(value, dict):
        return {name: _texts(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_texts(inner) for inner in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value is None else str(value)


def with_change(changes: Tree, change: Tree) -> Tree:
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


# ── comparing ──────────────────────────────────────────────────────────────────────────────────


def lists_more(after: CallReading, before: CallReading) -> bool:
    """Whether more records are listed, whatever is read of them, or as many with a page that proves the end.

    A server that does not know the parameters answers with the first page again.
    """
    if after.outcome != "ok" or after.unpaged:
        return False
    return after.count > before.count or (before.unpaged and after.count == before.count)


def lists_more_at_once(after: CallReading, before: CallReading) -> bool:
    """Whether more records are listed, without a proof that they are all."""
    return after.outcome == before.outcome == "ok" and after.count > before.count


def is_no_worse(after: CallReading, before: CallReading) -> bool:
    """Whether nothing is lost: no record, no field of one, and nothing unexpected is new."""
    if after.outcome != "ok" or (before.outcome == "ok" and after.amount < before.amount):
        return False
    if before.outcome != "ok":
        return _has_expected_field(after)
    if any(after.fields.get(name, 0) < count for name, count in before.fields.items()):
        return False
    return _unread(after) <= _unread(before) and _finding_keys(after) <= _finding_keys(before)


def improves(after: CallReading, before: CallReading) -> bool:
    """Whether more is read: the call at all, more records, more fields, or less that is unexpected."""
    if not is_no_worse(after, before):
        return False
    if before.outcome != "ok" or after.amount > before.amount:
        return _has_expected_field(after)
    is_fuller = sum(after.fields.values()) > sum(before.fields.values())
    return is_fuller or _unread(after) < _unread(before) or _finding_keys(after) < _finding_keys(before)


def _has_expected_field(reading: CallReading) -> bool:
    """Whether a field was read that is expected of the call."""
    return reading.coverage is not None and reading.coverage.seen > 0


def _unread(reading: CallReading) -> int:
    return reading.set_aside + sum(reading.unparseable.values()) + reading.not_believed


def _finding_keys(reading: CallReading) -> set[tuple[str, str]]:
    return {(finding.kind, finding.about) for finding in reading.findings}
