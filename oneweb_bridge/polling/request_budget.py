"""How many requests the calls may cost, and the intervals that follow from it."""

from collections.abc import Mapping, Sequence

from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.units import interval_text
from oneweb_bridge.model.records import Alert
from oneweb_bridge.polling import schedule
from oneweb_bridge.polling.call_runtime import CallRuntime


class RequestBudget:
    """Stretches the intervals of the calls to what the limiter allows. `config` is the configuration in force."""

    def __init__(self, calls: Mapping[str, CallRuntime], config: Config) -> None:
        self.config = config
        self._calls = calls
        self._stretching = False

    def check(self, calls: Sequence[str], changes: Mapping[str, bool | float | None]) -> None:
        """Raises ValueError when these changes of calls break `max_requests_per_hour`, and cost more than before."""
        allowed = self.config.api.rate_limit.max_requests_per_hour
        if allowed is None:
            return
        before, after = self._configured_intervals(), self._configured_intervals()
        for id in calls:
            configured, runtime = self.config.polling[id], self._calls[id]
            interval, enabled = changes.get("interval", runtime.interval), changes.get("enabled", runtime.enabled)
            after.pop(id, None)
            if configured.enabled if enabled is None else enabled:
                after[id] = configured.interval if interval is None else float(interval)
        cost = schedule.requests_per_hour(after, self._requests())
        if cost > allowed and cost > schedule.requests_per_hour(before, self._requests()):
            raise ValueError(
                f"this would cost {cost:.0f} requests an hour, api.rate_limit.max_requests_per_hour is {allowed}"
            )

    def stretch_intervals(self) -> Alert | None:
        """Sets the effective intervals. Returns an alert when they begin to be longer than configured."""
        limit = self.config.api.rate_limit
        allowed = 3600.0 / limit.min_interval if limit.min_interval > 0 else 3_600_000.0
        if limit.max_requests_per_hour is not None:
            allowed = min(allowed, float(limit.max_requests_per_hour))
        configured = self._configured_intervals()
        intervals = schedule.stretch_intervals(configured, self._requests(), allowed)
        for id, runtime in self._calls.items():
            runtime.effective = intervals.get(id, runtime.interval)
        factor = max((intervals[id] / configured[id] for id in configured), default=1.0)
        self._stretching, before = factor > 1.0, self._stretching
        if before or not self._stretching:
            return None
        cost = schedule.requests_per_hour(configured, self._requests())
        effective = ", ".join(f"{id} every {interval_text(round(interval))}" for id, interval in intervals.items())
        return Alert(
            kind="intervals_stretched",
            message=f"the enabled calls cost {cost:.0f} requests an hour, and of the {allowed:.0f} that api.rate_limit "
            f"allows a tenth stays free; their intervals are stretched {factor:.2f} times: {effective}",
        )

    def costs(self) -> dict[str, float]:
        """Requests an hour that each call costs at its effective interval; 0 for one that is disabled."""
        return {
            id: 3600.0 / runtime.effective * runtime.requests if runtime.enabled else 0.0
            for id, runtime in self._calls.items()
        }

    def whole_costs(self) -> dict[str, int]:
        """The same in whole requests, whose sum is that of all costs, rounded: each call alone may be off by one."""
        costs = self.costs()
        whole = {id: int(cost) for id, cost in costs.items()}
        missing = round(sum(costs.values())) - sum(whole.values())
        for id in sorted(costs, key=lambda id: whole[id] - costs[id])[:missing]:
            whole[id] += 1
        return whole

    def _configured_intervals(self) -> dict[str, float]:
        return {id: runtime.interval for id, runtime in self._calls.items() if runtime.enabled}

    def _requests(self) -> dict[str, float]:
        return {id: runtime.requests for id, runtime in self._calls.items()}
