"""What the storm of rebirth requests finds: data before their DBIRTH, births that are not whole, and memory."""

from collections.abc import Callable

import pytest

from oneweb_bridge.sparkplug.tree import Metric
from tests.sparkplug.facts import Facts, Message
from tests.sparkplug.handmade import BACKLOG, RSRP, SAMPLED, SINGLE, TWO, Story
from tests.sparkplug.storm import MAX_GROWTH_MIB, MAX_REBIRTHS, Outcome, breaches

DEVICES = 2


def births(count: int = 2) -> list[Message]:
    """So many births of the node and of both Devices, with data after each."""
    story = Story()
    story.connect()
    story.give_birth()
    for device in (SINGLE, TWO):
        story.add_device(device)
    for number in range(count):
        if number:
            story.pass_time(6.0)
            story.write("Node Control/Rebirth", value=True)
            story.pass_time(0.1)
        story.send(SINGLE, [Metric(RSRP, -90.0 + number, SAMPLED + 100 + number)])
        story.send("", [Metric(BACKLOG, number + 1, story.ms)])
    return Facts(story.trace).sent


def place(messages: list[Message], verb: str, device: str = "", number: int = 1) -> int:
    """The place of a message in its list, by its verb; by default in the second birth."""
    return [i for i, m in enumerate(messages) if (m.verb, m.device) == (verb, device)][number]


def test_whole_births_are_no_breach() -> None:
    """However many; data before the first of them count nothing, because nobody knows what was born before."""
    assert breaches(births(1), DEVICES) == []
    assert breaches(births(4), DEVICES) == []
    messages = births()
    assert breaches([messages[place(messages, "DDATA", SINGLE)], *messages], DEVICES) == []
    assert breaches([], DEVICES) == []


def lose_a_birth(messages: list[Message]) -> None:
    del messages[place(messages, "DBIRTH", TWO)]


def send_data_first(messages: list[Message]) -> None:
    data = messages.pop(place(messages, "DDATA", SINGLE))
    messages.insert(place(messages, "NBIRTH") + 1, data)


def send_data_between(messages: list[Message]) -> None:
    data = messages.pop(place(messages, "DDATA", SINGLE))
    messages.insert(place(messages, "DBIRTH", SINGLE), data)


def tell_of_the_node_first(messages: list[Message]) -> None:
    data = messages.pop(place(messages, "NDATA"))
    messages.insert(place(messages, "DBIRTH", TWO), data)


def begin_again(messages: list[Message]) -> None:
    messages.append(messages[place(messages, "NBIRTH")])


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (lose_a_birth, ["NDATA", "1 of 2 Devices are born"]),
        (send_data_first, [f"DDATA/oneweb-bridge/{SINGLE}"]),
        (send_data_between, [f"DDATA/oneweb-bridge/{SINGLE}"]),
        (tell_of_the_node_first, ["NDATA"]),
        (begin_again, ["0 of 2 Devices are born"]),
    ],
)
def test_breach_is_found(tamper: Callable[[list[Message]], None], expected: list[str]) -> None:
    """Each fault in the second birth gives just its own sentences, which name the message."""
    messages = births()
    tamper(messages)
    sentences = breaches(messages, DEVICES)
    assert len(sentences) == len(expected)
    assert all(words in sentence for words, sentence in zip(expected, sentences, strict=True))


def test_outcome_is_judged_by_its_bounds() -> None:
    """What is at a bound is right; what is above it, and each breach, is told."""
    good = Outcome(rebirths=MAX_REBIRTHS, breaches=[], growth_mib=MAX_GROWTH_MIB)
    assert good.findings() == []
    bad = Outcome(rebirths=MAX_REBIRTHS + 1, breaches=["one"], growth_mib=MAX_GROWTH_MIB + 0.1)
    assert [sentence.split()[0] for sentence in bad.findings()] == ["one", "4", "30.1"]
