"""Every fault by its name, and which pairs can meet."""

from itertools import combinations

from tests.campaign import (
    faults_api,
    faults_bridge,
    faults_broker,
    faults_disk,
    faults_fleet,
    faults_link,
    faults_users,
)
from tests.campaign.covering import Pair
from tests.campaign.fault import Fault

MODULES = (faults_bridge, faults_broker, faults_link, faults_api, faults_disk, faults_users, faults_fleet)
FAULTS: dict[str, Fault] = {fault.name: fault for module in MODULES for fault in module.FAULTS}
ACTORS = {fault.name: fault.actor for fault in FAULTS.values()}


def why_not(first: str, second: str) -> str | None:
    """Why these two cannot be in force in one round; None when they can."""
    return FAULTS[first].cannot_meet.get(second) or FAULTS[second].cannot_meet.get(first)


def possible_pairs() -> frozenset[Pair]:
    """Every pair that can meet, each in alphabetical order."""
    return frozenset(pair for pair in combinations(sorted(FAULTS), 2) if why_not(*pair) is None)
