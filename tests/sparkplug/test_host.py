"""The host of the tests: it follows a session to the values that were sent, and asks for a rebirth where it must."""

from oneweb_bridge.sparkplug.tree import Metric
from tests.sparkplug.handmade import RSRP, SAMPLED, SINGLE, Story, tell_story
from tests.sparkplug.host import TagStore, rebirth_request, write_command
from tests.sparkplug.reader import BOOLEAN, INT64, read_payload
from tests.sparkplug.wire import Event, Publish


def _published(events: list[Event]) -> list[Publish]:
    return [event.packet for event in events if event.up and isinstance(event.packet, Publish)]


def test_host_has_what_was_sent_last() -> None:
    """After a whole session its live tags are the last values, and its history has the samples."""
    story, store = tell_story(), TagStore()
    for packet in _published(story.events):
        asks = store.take(packet.topic, packet.payload)
        assert not asks, packet
    assert store.problems == []
    live = {key: tag.value for key, tag in store.tags.items() if key[1] not in ("bdSeq", "Node Control/Rebirth")}
    assert live == story.tags()
    assert {1.0, 2.0, -98.0, -90.0} <= {
        value for values in store.history[SINGLE, "Signal/RSRP"].values() for value in values
    }
    assert store.tags[SINGLE, "Signal/RSRP"].quality == 500


def test_null_that_was_replaced_is_not_the_live_value() -> None:
    """Of two samples in one message the later counts, also where the earlier one lacked the value."""
    story, store = Story(), TagStore()
    story.connect()
    story.give_birth()
    story.add_device(SINGLE)
    story.send(SINGLE, [Metric(RSRP, None, SAMPLED + 100), Metric(RSRP, -80.0, SAMPLED + 200)])
    for packet in _published(story.events):
        store.take(packet.topic, packet.payload)
    assert store.tags[SINGLE, "Signal/RSRP"].value == -80.0


def test_host_asks_for_what_it_missed() -> None:
    """A message that was lost is noticed at the next one, and data without a birth too."""
    packets, store = _published(tell_story().events), TagStore()
    data = [packet for packet in packets if "DATA" in packet.topic]
    assert store.take(data[0].topic, data[0].payload)
    answers = [store.take(packet.topic, packet.payload) for packet in packets[:4] + packets[5:7]]
    assert answers[:4] == [False] * 4
    assert answers[4]


def test_host_writes_what_protobuf_reads() -> None:
    """Its commands, made by hand, name a metric with its type and value."""
    request = read_payload(rebirth_request()).metrics[0]
    assert (request.name, request.datatype, request.value) == ("Node Control/Rebirth", BOOLEAN, True)
    write = read_payload(write_command("Polling/sites/Interval", 86_400)).metrics[0]
    assert (write.name, write.datatype, write.value) == ("Polling/sites/Interval", INT64, 86_400)
