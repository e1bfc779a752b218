"""Judges a trace by the statements of Sparkplug 3.0.0 that an Edge Node must fulfil. Pure.

128 are those that the seven edge tests of the TCK assert, without templates, data sets and several servers; 29 more can
be seen on the wire. Ids are those of the specification without `tck-id-`. Nobody ran the TCK itself.
"""

from collections.abc import Iterable, Mapping

from tests.sparkplug import rules_host, rules_order, rules_payload, rules_session
from tests.sparkplug.facts import Facts
from tests.sparkplug.judgement import Judgement, Rule
from tests.sparkplug.wire import Trace

RULES: dict[str, Rule] = dict(
    sorted((rules_session.RULES | rules_host.RULES | rules_payload.RULES | rules_order.RULES).items())
)
"""Statement -> the rule that judges it."""


def check(trace: Trace) -> dict[str, Judgement]:
    """Each statement's result."""
    facts = Facts(trace)
    return {statement: rule(facts) for statement, rule in RULES.items()}


def failures(verdicts: Mapping[str, Judgement]) -> dict[str, str]:
    """The statements that fail, with what is wrong."""
    return {statement: judgement.why for statement, judgement in verdicts.items() if judgement.result == "fail"}


_WEIGHT = {"not seen": 0, "pass": 1, "fail": 2}


def merge(all_verdicts: Iterable[Mapping[str, Judgement]]) -> dict[str, Judgement]:
    """Over several traces: fails where one fails, passes where one passes; else why nothing was seen in the first."""
    merged: dict[str, Judgement] = {}
    for verdicts in all_verdicts:
        for statement, judgement in verdicts.items():
            before = merged.setdefault(statement, judgement)
            if _WEIGHT[judgement.result] > _WEIGHT[before.result]:
                merged[statement] = judgement
    return merged
