"""Commands that somebody kept and sends again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.replays import REMEMBERED, Answered, remember, was_answered


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=3 * REMEMBERED))
def test_what_was_answered_is_never_answered_again(times):
    answered = Answered()
    for number, issued in enumerate(times):
        answered = remember(answered, f"c-{number}", issued)
    assert all(was_answered(answered, f"c-{i}", issued) for i, issued in enumerate(times))
    assert len(answered.commands) <= REMEMBERED
    assert not was_answered(answered, "new", max(times) + 1)
