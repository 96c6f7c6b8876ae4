"""The sequential detector: what it learns, what it sees, and what it keeps quiet about."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.drift.sequential import Detector, Rule, Standing
from tests.unit.drift.streams import RULE, detector, drifting, feed, season, weights

LEARN = int(RULE.learn)


def _noise(count, rows=1, columns=1, seed=1):
    return np.random.default_rng(seed).standard_normal((count, rows, columns))


def test_a_channel_learns_before_it_is_watched():
    standings = feed(detector(), _noise(LEARN + 5))
    assert (standings[: LEARN - 2] == Standing.LEARNING).all()
    assert standings[-1] == Standing.WATCHING


def test_a_daily_season_is_learned_and_is_no_drift():
    count = LEARN + 20 * 24
    values = 5 * season(count)[:, None, None] + 0.3 * _noise(count)
    assert not drifting(feed(detector(), values)).any()


def test_a_shift_of_the_mean_is_seen_within_a_few_windows():
    found = detector()
    feed(found, _noise(LEARN + 48))
    seen = drifting(feed(found, _noise(20, seed=2) + 3, LEARN + 48))[:, 0, 0]
    assert 1 <= int(seen.argmax()) <= 6


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_level_has_the_sign_of_the_shift(sign):
    found = detector()
    feed(found, _noise(LEARN + 48))
    for number in range(LEARN + 48, LEARN + 60):
        step = found.step(number, np.full((1, 1), 4 * sign), weights(1))
    assert step.level[0, 0] * sign > 1
    assert LEARN + 46 <= step.since[0, 0] <= LEARN + 49


def test_one_wild_window_alone_is_no_drift():
    found = detector()
    feed(found, _noise(LEARN + 48))
    values = _noise(30, seed=3)
    values[0] = 1e6
    assert not drifting(feed(found, values, LEARN + 48)).any()


def test_drift_ends_when_the_stream_comes_back():
    found = detector()
    feed(found, _noise(LEARN + 48))
    assert drifting(feed(found, _noise(10, seed=2) + 4, LEARN + 48))[-1]
    later = drifting(feed(found, _noise(120, seed=3), LEARN + 58))
    assert not later[-1].any()


def test_what_drifts_is_not_learned():
    found = detector()
    feed(found, _noise(LEARN + 48))
    assert drifting(feed(found, _noise(300, seed=2) + 4, LEARN + 48))[-1].all()


def test_an_accepted_level_is_the_new_normal():
    found = detector()
    feed(found, _noise(LEARN + 48))
    feed(found, _noise(20, seed=2) + 4, LEARN + 48)
    found.accept(0, 0)
    after = _noise(200, seed=4) + 4
    assert not drifting(feed(found, after, LEARN + 68))[5:].any()


def test_weather_that_all_see_is_not_blamed_on_a_device():
    count = LEARN + 24 * 10
    weather = np.cumsum(0.2 * np.random.default_rng(5).standard_normal(count))
    values = weather[:, None, None] + _noise(count, rows=12)
    found = detector(rows=12)
    assert not drifting(feed(found, values))[LEARN:].any()
    own = _noise(15, rows=12, seed=6) + weather[-1]
    own[:, 3] += 4
    seen = drifting(feed(found, own, count))[-1, :, 0]
    assert seen.tolist() == [row == 3 for row in range(12)]


def test_slow_sensors_do_not_alarm_for_being_slow():
    random = np.random.default_rng(7)
    values, state = [], np.zeros((4, 1))
    for _ in range(LEARN + 24 * 30):
        state = 0.8 * state + random.standard_normal(state.shape)
        values.append(state)
    assert drifting(feed(detector(rows=4), np.array(values)))[LEARN:].mean() < 0.01


def test_a_channel_that_would_alarm_on_its_own_learning_says_so_instead_of_paging():
    index = np.arange(3 * LEARN)
    since = np.maximum(index - 2 * LEARN // 3, 0)
    bursts = (since > 0) & (index % 40 < 4)  # each three times the one before
    values = _noise(3 * LEARN) + np.where(bursts, 6 * 3.0 ** (since // 40), 0)[:, None, None]
    standings = feed(detector(), values)
    assert not drifting(standings).any()
    assert (standings[-1] == Standing.UNCALIBRATED).all()


def test_unknown_values_and_missing_devices_change_nothing():
    found = detector(rows=2)
    feed(found, _noise(LEARN + 48, rows=2))
    step = found.step(LEARN + 48, np.array([[np.nan], [100.0]]), np.array([300.0, 0.0]))
    assert not step.counted.any()
    assert (step.standing == Standing.WATCHING).all()


def test_a_device_that_is_forgotten_learns_again_alone():
    found = detector(rows=2)
    feed(found, _noise(LEARN + 48, rows=2))
    found.forget(0)
    standing = feed(found, _noise(3, rows=2), LEARN + 48)[-1, :, 0]
    assert standing.tolist() == [Standing.LEARNING, Standing.WATCHING]


def test_a_restored_detector_goes_on_as_if_nothing_had_happened():
    values = _noise(LEARN + 100, rows=3, columns=2)
    values[LEARN + 20 :, 1, 0] += 2
    whole, first = detector(3, 2), detector(3, 2)
    expected = feed(whole, values)
    half = LEARN + 30
    feed(first, values[:half])
    again = Detector.load(first.dump(), RULE, np.full(2, 0.005), np.ones(2))
    assert (feed(again, values[half:], half) == expected[half:]).all()


def test_a_state_of_another_shape_is_refused():
    data = detector(2, 3).dump()
    with pytest.raises(ValueError, match="drift state"):
        Detector.load(data, RULE, np.full(2, 0.005), np.ones(2))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(st.just(float("nan")), st.just(float("inf")), st.floats(-1e12, 1e12)),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 10**9),
)
def test_no_stream_makes_a_number_that_is_none(rows, start):
    found = detector(1, 2, Rule(bucket_seconds=3600, learn_days=0.5, harmonics=1))
    for offset, row in enumerate(rows):
        step = found.step(start + offset, np.array([row]), weights(1))
        assert np.isfinite(step.level).all()
        assert np.isfinite(step.deviation).all()
        assert np.isfinite(step.expected).all()
