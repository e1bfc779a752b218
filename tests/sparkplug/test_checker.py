"""The checker of Sparkplug traces: a good session passes, and each statement notices the fault that it is about."""

import pytest

from tests.sparkplug.checker import RULES, check, failures, merge
from tests.sparkplug.faults import FAULTS, Fault
from tests.sparkplug.handmade import tell, tell_of_host

PERMISSIONS = {"payloads-name-cmd-requirement", "topic-structure-namespace-duplicate-device-id-across-edge-node"}
"""MAY: nothing can fail them."""
LEVELS = pytest.mark.parametrize("level", [4, 5])


def test_statements_are_those_of_the_edge() -> None:
    """128 statements of the TCK's edge tests and 29 others have a rule each."""
    assert len(RULES) == 128 + 29


@LEVELS
def test_good_sessions_fail_nothing(level: int) -> None:
    """What the pure session says in every scenario passes, on both versions of MQTT."""
    assert failures(check(tell(level))) == {}
    assert failures(check(tell_of_host(level))) == {}


def test_long_session_wraps_both_counters() -> None:
    """More than 256 messages and 257 connects pass, and `seq` and `bdSeq` have begun again in them."""
    trace = tell(samples=300, connects=257)
    assert failures(check(trace)) == {}
    assert len(trace.events) > 1500


def test_each_statement_is_seen() -> None:
    """Over the scenarios nothing is left unseen but what the bridge has not: Devices to write to, one id twice."""
    merged = merge(check(trace) for trace in (tell(4), tell(5), tell_of_host(4), tell_of_host(5)))
    assert {statement for statement, judgement in merged.items() if judgement.result == "not seen"} == {
        "message-flow-device-dcmd-subscribe",
        "topic-structure-namespace-duplicate-device-id-across-edge-node",
    }


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_noticed(fault: Fault) -> None:
    """A trace with a fault fails by the statements that the fault is about."""
    assert set(fault.noticed_by) - failures(check(fault.trace())).keys() == set()


def test_each_statement_can_fail() -> None:
    """There is a fault for every statement that is no permission."""
    assert RULES.keys() - {statement for fault in FAULTS for statement in fault.noticed_by} == PERMISSIONS


def test_merged_result_is_the_worst_that_was_seen() -> None:
    """A statement that fails in one scenario fails; one that passes in one and is not seen in others passes."""
    good, host = check(tell(5)), check(tell_of_host(5))
    wait = "message-flow-edge-node-birth-publish-phid-wait"
    assert good[wait].result == "not seen"
    assert merge([good, host])[wait].result == "pass"
    bad = next(fault for fault in FAULTS if fault.name == "births without a host")
    assert merge([host, check(bad.trace())])[wait].result == "fail"
