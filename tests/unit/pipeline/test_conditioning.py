"""Units, age, order, held values and resampling: every row once, whatever the times say."""

from __future__ import annotations

import array
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pipeline.conditioning import LATE_ROWS, AgeLimits, Conditioner
from agent.ports import Samples
from shoal.protocol.manifest import Contract, Feature, OutputField
from shoal.units import UnitMismatchError

NAN = math.nan


def _contract(names=("a",), units=(), missing="drop", **more):
    features = [
        Feature(name=name, unit=unit, missing=missing, **more.pop("feature", {}))
        for name, unit in zip(names, units or [""] * len(names), strict=True)
    ]
    return Contract(features=features, outputs=[OutputField(name="y")], **more)


def _samples(times, *columns):
    columns = columns or ([float(t) for t in times],)
    flat = [value for row in zip(*columns, strict=True) for value in row]
    return Samples(list(times), array.array("f", flat).tobytes(), len(columns))


def _rows(stretches):
    return [
        (ms, *array.array("f", s.samples.values)[i * s.samples.width : (i + 1) * s.samples.width])
        for s in stretches
        for i, ms in enumerate(s.samples.times_ms)
    ]


def _push(conditioner, *samples, now_ms=0):
    found = []
    for one in samples:
        found += conditioner.push(one, now_ms)
    return found


def test_a_release_that_asks_for_nothing_gets_its_samples_untouched():
    samples = _samples([5, 1, 3])
    (stretch,) = Conditioner(_contract(), {}).push(samples, 0)
    assert stretch.samples is samples


def test_the_sensor_s_unit_becomes_the_contract_s():
    contract = _contract(("t", "p", "x"), ("°C", "bar", "mm"))
    conditioner = Conditioner(contract, {"t": "°F", "p": "psi"})
    ((_, t, p, x),) = _rows(conditioner.push(_samples([0], [212.0], [14.5038], [7.0]), 0))
    assert (t, p, x) == (pytest.approx(100.0), pytest.approx(1.0, abs=1e-5), 7.0)


def test_every_unit_that_cannot_be_converted_is_named():
    contract = _contract(("t", "p", "x"), ("°C", "bar", "mm"))
    with pytest.raises(UnitMismatchError) as caught:
        Conditioner(contract, {"t": "bar", "p": "hPa", "x": "furlong"})
    assert caught.value.sentence == (
        "unit of t: expected °C (temperature), got bar (pressure); "
        "unit of x: expected mm, got furlong: furlong is not a unit that can be converted"
    )


def test_rows_too_old_and_from_the_future_are_dropped_and_told_apart():
    conditioner = Conditioner(_contract(), {}, AgeLimits(10, 5))
    found = _push(conditioner, _samples([0, 90_000, 99_999, 100_000, 106_000]), now_ms=100_000)
    assert [row[0] for row in _rows(found)] == [90_000, 99_999, 100_000]
    assert conditioner.take_dropped() == {"stale": 1, "future": 1}


def test_a_straggler_is_dropped_where_windows_need_order():
    conditioner = Conditioner(_contract(window_rows=2), {})
    found = _push(conditioner, _samples([10, 30, 20, 30, 40]), _samples([35, 50]))
    assert [row[0] for row in _rows(found)] == [10, 30, 30, 40, 50]
    assert conditioner.take_dropped() == {"out-of-order": 2}
    assert not any(one.anew for one in found)


def test_a_clock_set_back_begins_windows_anew():
    conditioner = Conditioner(_contract(window_rows=2), {})
    found = _push(conditioner, _samples([100_000, 100_010, 10, 20]))
    assert [one.anew for one in found] == [False, True]
    assert conditioner.take_dropped() == {}


def test_a_clock_set_back_a_little_costs_a_few_rows_only():
    conditioner = Conditioner(_contract(window_rows=2), {})
    _push(conditioner, _samples([1000]))
    found = _push(conditioner, *[_samples([n]) for n in range(100, 140)])
    assert conditioner.take_dropped() == {"out-of-order": LATE_ROWS}
    assert len(_rows(found)) == 40 - LATE_ROWS
    assert found[0].anew


def test_a_pause_beyond_the_limit_begins_windows_anew():
    conditioner = Conditioner(_contract(window_rows=2, max_gap_seconds=1.0), {})
    found = _push(conditioner, _samples([0, 500, 1501, 1600]), _samples([3000]))
    assert [(one.anew, one.samples.times_ms) for one in found] == [
        (False, [0, 500]),
        (True, [1501, 1600]),
        (True, [3000]),
    ]


def test_a_value_is_held_while_it_is_young_and_makes_a_row_stale_after():
    contract = _contract(("a", "b"), missing="hold", feature={"max_age_seconds": 1.0})
    features = [Feature(name=n, missing="hold", max_age_seconds=1.0) for n in ("a", "b")]
    contract = Contract(features=features, outputs=contract.outputs)
    conditioner = Conditioner(contract, {})
    found = _rows(
        _push(
            conditioner,
            _samples([0, 100, 1100, 1101], [1, 2, 3, 4], [NAN, 5, NAN, NAN]),
            _samples([1200], [NAN], [6]),
        )
    )
    assert [row[0] for row in found] == [0, 100, 1100, 1200]
    assert math.isnan(found[0][2])  # never there yet: the missing rule of the worker
    assert found[2] == (1100, 3.0, 5.0)
    assert found[3] == (1200, 4.0, 6.0)
    assert conditioner.take_dropped() == {"stale": 1}


def _resampled(method, samples, rate_hz=100.0, width=1):
    contract = _contract(tuple(f"f{i}" for i in range(width)), resample=method, rate_hz=rate_hz)
    conditioner = Conditioner(contract, {})
    found = _rows(_push(conditioner, *samples))
    rest = conditioner.finish()
    found += _rows([type("S", (), {"samples": rest})])
    return found, conditioner


@pytest.mark.parametrize("method", ["last", "mean", "linear"])
def test_rows_at_the_contract_s_own_rate_go_through_as_they_are(method):
    found, conditioner = _resampled(method, [_samples([0, 10, 20]), _samples([30, 40])])
    assert found == [(t, float(t)) for t in (0, 10, 20, 30, 40)]
    assert conditioner.take_dropped() == {}
    assert conditioner.take_made() == 0


def test_faster_rows_are_merged_by_the_method():
    rows = [_samples([0, 4, 8, 10, 14, 18, 20])]
    assert _resampled("last", rows)[0] == [(0, 0.0), (10, 10.0), (20, 20.0)]
    found, conditioner = _resampled("mean", rows)
    assert [(t, round(v, 3)) for t, v in found] == [(0, 0.0), (10, 7.333), (20, 17.333)]
    assert conditioner.take_dropped() == {"resampled": 4}


def test_slower_rows_are_filled_by_the_method():
    rows = [_samples([0, 25])]
    assert _resampled("last", rows)[0] == [(0, 0.0), (10, 0.0), (20, 0.0)]
    found, conditioner = _resampled("linear", rows)
    assert [(t, round(v, 3)) for t, v in found] == [(0, 0.0), (10, 10.0), (20, 20.0)]
    assert conditioner.take_made() == 2
    assert conditioner.take_dropped() == {"resampled": 1}


def test_a_pause_is_not_filled():
    found, conditioner = _resampled("last", [_samples([0, 10, 5000, 5010])])
    assert [row[0] for row in found] == [0, 5000, 5010]
    assert conditioner.take_dropped() == {"resampled": 1}


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.one_of(st.integers(-50, 200), st.integers(-20_000, 20_000)),
                st.floats(-100, 100, width=32) | st.just(NAN),
            ),
            max_size=20,
        ),
        max_size=8,
    ),
    st.sampled_from(["", "last", "mean", "linear"]),
    st.sampled_from(["drop", "hold"]),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.05]),
)
def test_every_row_is_settled_once_and_times_never_go_back_within_a_stretch(
    batches, method, missing, window_rows, gap
):
    feature = Feature(name="a", missing=missing, max_age_seconds=0.1)
    contract = Contract(
        features=[feature], outputs=[OutputField(name="y")], resample=method, rate_hz=50.0,
        window_rows=window_rows, max_gap_seconds=gap,
    )  # fmt: skip
    conditioner = Conditioner(contract, {}, AgeLimits(15, 15))
    came = out = now = 0
    before = None
    for steps in batches:
        times = []
        for step, _ in steps:
            now += step
            times.append(now)
        came += len(times)
        for stretch in conditioner.push(_samples(times, [v for _, v in steps]), 0):
            if method or window_rows > 1:
                ordered = [] if stretch.anew or before is None else [before]
                ordered += stretch.samples.times_ms
                assert ordered == sorted(ordered)
                if stretch.samples.times_ms:
                    before = stretch.samples.times_ms[-1]
                elif stretch.anew:
                    before = None
            out += len(stretch.samples.times_ms)
    rest = conditioner.finish()
    out += len(rest.times_ms) if rest is not None else 0
    conditioner.abandon()
    assert came + conditioner.take_made() == out + conditioner.take_dropped().total()
