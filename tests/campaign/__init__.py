"""The fault campaign: faults, the timelines in which they meet, and what is judged."""

from tests import harness


def is_at_rest(recorder: harness.Recorder, calls: int = 12) -> bool:
    """Whether every call has succeeded at least once, as far as the recorder heard."""
    wanted = {
        t: p for t, p in recorder.retained.items() if t.startswith("oneweb/bridge/polling/") and t.endswith("/state")
    }
    return len(wanted) == calls and all("last_success" in state for state in wanted.values())
