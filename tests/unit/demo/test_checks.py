"""The demo's checks: each must pass on a good story and name what is missing in a bad one."""

from __future__ import annotations

from typing import Any

import pytest
from demo_lib import checks

Document = dict[str, Any]
GOOD = {"model": "weather", "version": "2", "sequence": 2}
BAD = {"model": "weather", "version": "3", "sequence": 3}
NAMES = ["canary", "25 %", "100 %"]


def device(name: str, version: str | None = "1", online: bool = True) -> Document:
    models = [{"model": "weather", "active_version": version}]
    return {"device": name, "online": online, "models": models}


def window(sequence: int, start_ms: int = 0, ok: int = 10, **more: Any) -> Document:
    counts = {"in_count": ok, "ok": ok, "dropped": {}, "failed": {}}
    return {"release_sequence": sequence, "start_ms": start_ms, "end_ms": 9} | counts | more


def good_rollout(**more: Any) -> Document:
    waves = [
        {"number": n, "name": name, "state": "passed", "released_ms": r, "finished_ms": r + 90}
        for n, (name, r) in enumerate(zip(NAMES, (100, 200, 300), strict=True), start=1)
    ]
    return {"rollout": "r-1", "state": "succeeded", "reason": "", "waves": waves} | more


def execution(name: str, wave: int, offered_ms: int | None) -> Document:
    return {"device": name, "wave": wave, "offered_ms": offered_ms}


EXECUTIONS = [execution("a", 1, 100), execution("b", 2, 201), execution("c", 3, 305)]
WINDOWS = {"a": [window(1), window(2, 110)], "b": [window(2, 230)], "c": [window(2, 310)]}


def test_a_ready_fleet_has_nothing_missing() -> None:
    assert checks.unready_devices([device("a"), device("b")], ["a", "b"], "weather", "1") == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "not enrolled"),
        ([device("a", online=False)], "not online"),
        ([device("a", "2")], "runs weather 2"),
        ([device("a", None)], "runs weather nothing"),
        ([{"device": "a", "online": True, "models": []}], "runs weather nothing"),
    ],
)
def test_names_a_device_that_is_not_ready(found: list[Document], words: str) -> None:
    (sentence,) = checks.unready_devices(found, ["a"], "weather", "1")
    assert words in sentence


def test_a_device_without_answered_rows_is_silent() -> None:
    windows = {"a": [window(1)], "b": [window(2, ok=0)], "c": []}
    assert len(checks.silent_devices(windows, 1)) == 2


def test_a_staged_rollout_has_no_fault() -> None:
    assert checks.wave_faults(good_rollout(), EXECUTIONS, WINDOWS, NAMES, 2) == []


def test_sees_a_rollout_that_did_not_succeed() -> None:
    rollout = good_rollout(state="paused", reason="too few rows")
    (fault,) = checks.wave_faults(rollout, EXECUTIONS, WINDOWS, NAMES, 2)
    assert "too few rows" in fault


def test_sees_a_wave_released_before_the_one_before_was_finished() -> None:
    rollout = good_rollout()
    rollout["waves"][1]["released_ms"] = 150
    (fault,) = checks.wave_faults(rollout, EXECUTIONS, WINDOWS, NAMES, 2)
    assert "released before canary" in fault


def test_sees_a_wave_that_is_missing_or_never_finished() -> None:
    rollout = good_rollout()
    rollout["waves"].pop(1)
    assert checks.wave_faults(rollout, EXECUTIONS, WINDOWS, NAMES, 2)
    rollout = good_rollout()
    rollout["waves"][0]["finished_ms"] = None
    assert checks.wave_faults(rollout, EXECUTIONS, WINDOWS, NAMES, 2)


def test_sees_a_device_that_was_offered_or_ran_the_release_early() -> None:
    early = [execution("a", 1, 100), execution("b", 2, 150), execution("c", 3, 305)]
    (fault,) = checks.wave_faults(good_rollout(), early, WINDOWS, NAMES, 2)
    assert fault.startswith("b: offered")
    windows = WINDOWS | {"c": [window(2, 299)]}
    (fault,) = checks.wave_faults(good_rollout(), EXECUTIONS, windows, NAMES, 2)
    assert fault.startswith("c: ran")


def test_sees_a_device_that_no_wave_reached() -> None:
    windows = WINDOWS | {"d": [window(1)]}
    (fault,) = checks.wave_faults(good_rollout(), EXECUTIONS, windows, NAMES, 2)
    assert fault == "d: in no wave"


TRIED = [execution("a", 1, 400), execution("b", 2, None)]
AFTER = {"a": [window(2), window(3), window(2)], "b": [window(2)]}
REASON = "canary: a: 96 % of answers out of range, limit 20 %"


def rolled_back(**more: Any) -> Document:
    return {"rollout": "r-2", "state": "rolled_back", "reason": REASON} | more


def rollback_faults(**more: Any) -> list[str]:
    story: Document = {
        "rollout": rolled_back(),
        "executions": TRIED,
        "devices": [device("a", "2"), device("b", "2")],
        "windows": AFTER,
    }
    return checks.rollback_faults(**(story | more), bad=BAD, good=GOOD)


def test_a_caught_release_has_no_fault() -> None:
    assert rollback_faults() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rollout": rolled_back(state="succeeded")}, "expected rolled_back"),
        ({"rollout": rolled_back(reason="")}, "names no device"),
        ({"devices": [device("a", "3"), device("b", "2")]}, "a: runs 3"),
        ({"windows": AFTER | {"b": [window(3)]}}, "b: ran the bad release"),
    ],
)
def test_names_what_was_wrong_about_a_rollback(change: Document, words: str) -> None:
    (fault,) = rollback_faults(**change)
    assert words in fault


def test_a_release_that_nobody_tried_was_not_caught() -> None:
    assert rollback_faults(executions=[execution("a", 1, None)])


def test_counts_every_row() -> None:
    good = window(1, ok=8, in_count=10, dropped={"missing": 1}, failed={"worker-crashed": 1})
    assert checks.unaccounted_windows({"a": [good]}) == []
    (fault,) = checks.unaccounted_windows({"a": [good | {"in_count": 11}]})
    assert "11 rows in, 10 accounted for" in fault
    assert checks.counted_rows({"a": [good], "b": [window(1)]}) == (20, 18)


def test_names_rejected_messages() -> None:
    row = {"device": "", "channel": "window", "code": "invalid-message", "count": 2, "example": "x"}
    assert checks.rejected_messages([row]) == [
        "unknown device: 2 messages on window rejected as invalid-message: x"
    ]
