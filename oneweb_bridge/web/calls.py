"""The polling manager as the console shows it: each call's state, cost and sources, and what is held."""

import msgspec

from oneweb_bridge.clock import Clock, SteadyTime
from oneweb_bridge.config.schema import RateLimit
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.polling.call_runtime import CallRuntime
from oneweb_bridge.polling.call_states import ONCE_PER_RUN
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store.reading import HeldRecords, Queries, StoredSetting
from oneweb_bridge.web.payloads import CallAlert, CallEntry, CallsAnswer, HeldEntry, SettingSources, Source


class StoredCalls(msgspec.Struct, frozen=True):
    """What the database knows of the calls: sources of settings, and the records that are held for each."""

    settings: list[StoredSetting]
    held: dict[str, HeldRecords]


def read_stored_calls(queries: Queries, holding: list[str]) -> StoredCalls:
    """The sources of all settings, and the held records of the calls that are holding."""
    return StoredCalls(queries.settings(), {call: queries.held_records(CALLS[call].entity) for call in holding})


def holding_calls(poller: Poller) -> list[str]:
    """The calls whose removals or values are held."""
    return [call for call, runtime in poller.calls.items() if runtime.progress.is_holding()]


def hourly_limit(limit: RateLimit) -> int | None:
    """Requests an hour that `api.rate_limit` allows; None where it sets no limit."""
    limits = [] if limit.max_requests_per_hour is None else [float(limit.max_requests_per_hour)]
    if limit.min_interval > 0:
        limits.append(3600.0 / limit.min_interval)
    return round(min(limits)) if limits else None


def calls_answer(
    poller: Poller, stored: StoredCalls, limit: int | None, clock: Clock, steady: SteadyTime
) -> CallsAnswer:
    """The table of the polling manager."""
    costs = poller.whole_costs()
    sources = {(setting.call, setting.name): _source(setting.source) for setting in stored.settings}
    return CallsAnswer(
        calls=[_entry(poller, runtime, costs[call], sources) for call, runtime in poller.calls.items()],
        requests_per_hour=sum(costs.values()),
        limit=limit,
        held=[
            HeldEntry(call=call, count=held.count, ids=held.ids, since=_held_since(poller.calls[call], clock, steady))
            for call, held in stored.held.items()
            if poller.calls[call].progress.is_holding()
        ],
    )


def _source(text: str) -> Source:
    return "console" if text == "console" else "mqtt"


def _entry(poller: Poller, runtime: CallRuntime, cost: int, sources: dict[tuple[str, str], Source]) -> CallEntry:
    state = msgspec.structs.asdict(poller.state(runtime))
    return CallEntry(
        **state,
        effective_interval=round(runtime.effective),
        requests_per_hour=cost,
        lateness=round(runtime.lateness),
        about=CALLS[runtime.call].about,
        source=SettingSources(
            enabled=sources.get((runtime.call, "enabled"), "file"),
            interval=sources.get((runtime.call, "interval"), "file"),
        ),
        # What is raised once in a run does not say whether it still holds.
        alerts=[CallAlert(kind, about) for kind, about in runtime.alerted if kind not in ONCE_PER_RUN],
    )


def _held_since(runtime: CallRuntime, clock: Clock, steady: SteadyTime) -> str | None:
    """When the first of what is held was missed; None when the machine was started since."""
    values: dict[str, int] = msgspec.json.decode(runtime.progress.values_held)
    moments = [moment for moment in (runtime.progress.held_since, *values.values()) if moment > 0]
    age = steady.age(min(moments)) if moments else None
    return None if age is None else rfc3339(clock.now() - round(age * 1000))
