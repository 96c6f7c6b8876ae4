"""From what devices report to a verdict for each metric, at six fixed looks."""

from __future__ import annotations

import numpy as np
import pytest

from controller.rollouts.gates import Compared, Evidence
from controller.rollouts.significance import (
    Look,
    choose_metrics,
    detectable_changes,
    due_look,
    look_for_harm,
)
from shoal.protocol.manifest import Gates
from shoal.protocol.messages import LATENCY_EDGES_US

LOOK = Look(3, 1000)
BINS = len(LATENCY_EDGES_US) + 1


def _evidence(name, random, failed=0.01, odd=0.1, mean=20.0, slow=0):
    rows = 3000
    bad = int(random.binomial(rows, failed))
    odds = int(random.binomial(rows - bad, odd))
    latency = [0] * BINS
    latency[BINS // 2 + slow] = rows - bad
    return Evidence(
        name,
        answered=rows - bad,
        failed=bad,
        answers=rows,
        latency_counts=tuple(latency),
        labels={"normal": rows - bad - odds, "anomaly": odds},
        moments={"power": (mean + 0.1 * random.standard_normal(), 2.0)},
    )


def _compared(canary=20, control=40, **harm):
    random = np.random.default_rng(1)
    names = [f"gw-{i}" for i in range(canary + control)]
    before = {name: _evidence(name, random) for name in names}
    return Compared(
        wave=[_evidence(name, random, **harm) for name in names[:canary]],
        control=[_evidence(name, random) for name in names[canary:]],
        before=before,
        has_control=control > 0,
    )


def _verdicts(found):
    return {one.name: one.verdict for one in look_for_harm(found, Gates(), LOOK, ["power"])}


def test_a_harmless_release_passes_every_test():
    assert _verdicts(_compared()) == {
        "more failed rows than the control": "pass",
        "slower than the control": "pass",
        "share of anomaly": "pass",
        "power moved": "pass",
    }


@pytest.mark.parametrize(
    ("harm", "fails"),
    [
        ({"failed": 0.03}, "more failed rows than the control"),
        ({"slow": 1}, "slower than the control"),
        ({"odd": 0.3}, "share of anomaly"),
        ({"mean": 21.0}, "power moved"),
    ],
)
def test_each_kind_of_harm_fails_its_own_test(harm, fails):
    found = _verdicts(_compared(**harm))
    assert [name for name, verdict in found.items() if verdict == "fail"] == [fails]


def test_the_sentence_says_how_much_by_how_many_and_what_is_harmless():
    found = look_for_harm(_compared(failed=0.04), Gates(), LOOK, [])
    sentence = found[0].sentence
    assert "20 against 40 devices, look 3 of 6" in sentence
    assert "+0.50% is harmless" in sentence


def test_few_devices_are_not_judged_and_say_so():
    found = look_for_harm(_compared(2, 5, failed=0.5), Gates(), LOOK, [])
    assert {one.verdict for one in found} == {"not-judged"}
    assert "2 against 5 devices are too few to tell" in found[0].sentence


def test_without_a_control_there_is_nothing_to_test():
    assert look_for_harm(_compared(20, 0), Gates(), LOOK, []) == ()


def test_devices_that_reported_too_little_do_not_count():
    found = _compared(canary=20)
    quiet = Compared(
        [Evidence(one.device, answered=5) for one in found.wave],
        found.control,
        found.before,
        has_control=True,
    )
    assert {one.verdict for one in look_for_harm(quiet, Gates(), LOOK, [])} == {"not-judged"}


@pytest.mark.parametrize(
    ("now_s", "number"), [(0, None), (9.9, None), (10, 1), (25, 2), (60, 6), (600, 6)]
)
def test_a_soak_has_six_looks_at_fixed_moments(now_s, number):
    look = due_look(100_000 + int(now_s * 1000), 100_000, 60.0, 0)
    assert (look and look.number) == number
    assert look is None or look.at_ms == 100_000 + look.number * 10_000


def test_a_soak_of_no_length_is_looked_at_once():
    look = due_look(100_000, 100_000, 0.0, 0)
    assert look is None or look.number <= 6
    assert due_look(100_100, 100_000, 0.0, 0).number == 6


def test_the_preview_says_what_a_canary_would_find():
    found = _compared(20, 40)
    metrics = choose_metrics(found, Gates(), ["power"])
    random = np.random.default_rng(2)
    again = {name: _evidence(name, random) for name in found.before}
    least = detectable_changes(metrics, (found.before, again), 20, 40)
    assert 0.005 < least["failed rows"] < 0.03
    assert detectable_changes(metrics, (found.before, again), 2, 4)["failed rows"] is None
