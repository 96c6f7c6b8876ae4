"""Drawing devices into waves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rollouts.values import WaveSpec, parse_specification
from controller.rollouts.waves import cut_waves, draw_order
from shoal.errors import InvalidInputError

NAMES = st.lists(st.integers(0, 10**6), unique=True, max_size=60).map(
    lambda numbers: [f"gw-{number}" for number in numbers]
)
SPECS = st.lists(
    st.one_of(
        st.integers(1, 20).map(lambda n: WaveSpec(name="w", devices=n)),
        st.floats(0.01, 1.0).map(lambda x: WaveSpec(name="w", share=x)),
    ),
    min_size=1,
    max_size=6,
)


@given(names=NAMES, specs=SPECS)
def test_every_device_is_in_at_most_one_wave(names, specs):
    order = draw_order("r-1", [(name, "p") for name in names])
    waves = cut_waves(specs, order)
    drawn = [name for wave in waves for name in wave]
    assert len(waves) == len(specs)
    assert sorted(order) == sorted(names)
    assert drawn == order[: len(drawn)]
    if specs[-1].share == 1.0:
        assert len(drawn) == len(names)


@given(names=NAMES, seed=st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_how_devices_are_listed(names, seed):
    devices = [(name, name[-1]) for name in names]
    shuffled = seed.sample(devices, len(devices))
    assert draw_order("r-1", devices) == draw_order("r-1", shuffled)


def test_every_rollout_draws_other_devices_first():
    devices = [(f"gw-{number}", "p") for number in range(50)]
    canaries = {draw_order(f"r-{number}", devices)[0] for number in range(40)}
    assert len(canaries) > 15


@pytest.mark.parametrize("first", [10, 25, 50])
def test_every_wave_has_the_profiles_of_the_fleet_in_proportion(first):
    devices = [(f"a-{n}", "pi") for n in range(60)] + [(f"b-{n}", "nuc") for n in range(40)]
    wave = draw_order("r-7", devices)[:first]
    share = sum(name.startswith("a-") for name in wave) / first
    assert abs(share - 0.6) <= 1 / first


@pytest.mark.parametrize(
    ("specs", "sizes"),
    [
        ([{"devices": 1}, {"share": 0.25}, {"share": 1.0}], [1, 1, 6]),
        ([{"devices": 3}, {"devices": 100}], [3, 5]),
        ([{"share": 0.5}, {"share": 0.25}, {"share": 1.0}], [4, 0, 4]),
        ([{"share": 0.01}], [1]),
        ([{"devices": 2}, {"devices": 2}], [2, 2]),
    ],
)
def test_counts_add_and_shares_include_the_waves_before(specs, sizes):
    order = [f"gw-{number}" for number in range(8)]
    found = cut_waves([WaveSpec(name="w", **spec) for spec in specs], order)
    assert [len(wave) for wave in found] == sizes


def test_a_tenth_of_thirty_is_three_in_spite_of_binary_fractions():
    assert len(cut_waves([WaveSpec(name="w", share=0.1)], ["x"] * 30)[0]) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"waves": []}, "waves"),
        ({"waves": [{"name": "a"}]}, "either devices or share"),
        ({"waves": [{"name": "a", "devices": 1, "share": 0.5}]}, "either devices or share"),
        ({"waves": [{"name": "a", "share": 1.5}]}, "share"),
        ({"waves": [{"name": "a", "devices": 0}]}, "devices"),
        ({"soak_seconds": -1}, "soak_seconds"),
        ({"max_failed_ratio": 2}, "max_failed_ratio"),
        ({"on_failure": "ignore"}, "on_failure"),
        ({"model": "../etc"}, "model"),
        ({"version": ""}, "version"),
        ({"gates": {"min_rows": "many"}}, "min_rows"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_specification_is_refused_by_its_field(change, words):
    with pytest.raises(InvalidInputError, match=words) as error:
        parse_specification({"model": "m", "version": "1", **change})
    assert error.value.code == "invalid-rollout"
