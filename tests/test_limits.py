"""How long the API is left alone after a 429."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.limits import DEFAULT, LONGEST, pause_of

NOW = 1750167607.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, DEFAULT),
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": " 30 "}, 30),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "99999"}, LONGEST),
        ({"Retry-After": "9" * 400}, LONGEST),
        ({"Retry-After": "Tue, 17 Jun 2025 13:42:07 GMT"}, 120),
        ({"Retry-After": "Tue, 17 Jun 2025 13:00:00 GMT"}, 1),
        ({"Retry-After": "soon"}, DEFAULT),
        ({"Retry-After": "-5"}, DEFAULT),
        ({"x-ratelimit-reset": "45000"}, 45),
        ({"x-ratelimit-reset": "1750167697"}, 90),
        ({"x-ratelimit-reset": "1750167697000"}, 90),
        ({"x-ratelimit-reset": "-1"}, DEFAULT),
        ({"Retry-After": "10", "x-ratelimit-reset": "20000"}, 20),
        ({"Retry-After": "soon", "x-ratelimit-reset": "20000"}, 20),
    ],
)
def test_pause_is_what_the_answer_says(headers: dict[str, str], expected: float) -> None:
    """Retry-After in s or as a date, the window's reset in ms or as an epoch: the longer counts, nonsense does not."""
    assert expected == pytest.approx(pause_of(headers, NOW))


@given(
    st.dictionaries(
        st.sampled_from(["Retry-After", "x-ratelimit-reset"]), st.text(max_size=30) | st.integers().map(str)
    ),
    st.floats(0, 1e10),
)
def test_pause_is_always_bounded(headers: dict[str, str], now: float) -> None:
    """Whatever the headers say, the pause is between a second and LONGEST, so that no server stops the bridge."""
    assert 1.0 <= pause_of(headers, now) <= LONGEST
