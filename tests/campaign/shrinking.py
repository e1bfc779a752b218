"""The smallest timeline that still fails: fewer faults, then shorter, then later. Pure, but for what plays a round."""

from collections.abc import Awaitable, Callable, Iterator

import msgspec

from tests.campaign.timeline import Span, Timeline

SHORTEST_S = 1.0
MAX_ROUNDS = 24
"""Rounds that a shrinking may take."""

Fails = Callable[[Timeline], Awaitable[bool]]


async def shrink(timeline: Timeline, fails: Fails, max_rounds: int = MAX_ROUNDS) -> Timeline:
    """The smallest timeline with the same seed that fails, as far as `max_rounds` plays can tell.

    `timeline` itself has failed. A step is taken only when what it leads to fails too.
    """
    tried: set[Timeline] = {timeline}
    while True:
        for candidate in _smaller(timeline):
            if candidate in tried:
                continue
            if len(tried) > max_rounds:
                return timeline
            tried.add(candidate)
            if await fails(candidate):
                timeline = candidate
                break
        else:
            return timeline


def _smaller(timeline: Timeline) -> Iterator[Timeline]:
    """What is a step smaller, the largest steps first."""
    spans = timeline.spans
    if len(spans) > 1:
        for number in range(len(spans)):
            yield _with_spans(timeline, spans[:number] + spans[number + 1 :])
    if timeline.is_cold:
        yield msgspec.structs.replace(timeline, is_cold=False)
    for number, span in enumerate(spans):
        if span.seconds > SHORTEST_S:
            shorter = max(SHORTEST_S, round(span.seconds / 2, 1))
            yield _with_span(timeline, number, msgspec.structs.replace(span, seconds=shorter))
    end = max(span.begin + span.seconds for span in spans)
    for number, span in enumerate(spans):
        latest = round(end - span.seconds, 1)
        if latest > span.begin:
            yield _with_span(timeline, number, msgspec.structs.replace(span, begin=latest))


def _with_spans(timeline: Timeline, spans: tuple[Span, ...]) -> Timeline:
    return msgspec.structs.replace(timeline, spans=spans)


def _with_span(timeline: Timeline, number: int, span: Span) -> Timeline:
    return _with_spans(timeline, (*timeline.spans[:number], span, *timeline.spans[number + 1 :]))


def command_of(timeline: Timeline) -> str:
    """The command that repeats it."""
    return f"make soak ARGS='--timeline \"{timeline}\" --seed {timeline.seed}'"


def body_of_test(timeline: Timeline) -> str:
    """The same as a test."""
    name = "_and_".join(fault.replace(" ", "_").replace(",", "") for fault in timeline.faults)
    return (
        f"async def test_nothing_is_lost_with_{name}(tmp_path: Path) -> None:\n"
        f'    result = await play(tmp_path, parse("{timeline}", {timeline.seed}))\n\n'
        "    assert result.findings == []\n"
    )
