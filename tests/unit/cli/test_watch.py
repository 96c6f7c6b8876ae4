"""The picture of a rollout, and its one-line form."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType

from shoal.cli.watch import rollout_line, rollout_picture

NOW_MS = 1_000_000_000


def wave(name: str, state: str, done: int, size: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "done": done, "size": size, "failed": 0} | more


def rollout(**more: Any) -> dict[str, Any]:
    gate = {"name": "failed rows", "value": 0.004, "limit": 0.02, "verdict": "pass"}
    return {
        "rollout": "r-42",
        "model": "weather",
        "version": "1.5.0",
        "previous_version": "1.4.2",
        "selector": "*",
        "state": "running",
        "reason": "",
        "options": {"soak_seconds": 90.0},
        "waves": [
            wave("canary", "passed", 100, 100, gates=[gate]),
            wave("10 %", "soaking", 740, 1000, failed=3, soaking_ms=NOW_MS - 6000),
            wave("100 %", "pending", 0, 5000),
        ],
    } | more


def drawn(picture: RenderableType) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(picture)
    return capture.get()


def test_shows_versions_target_waves_and_gates() -> None:
    text = drawn(rollout_picture(rollout(), NOW_MS))
    assert "r-42 weather 1.4.2 → 1.5.0  target *  6,100 devices" in text
    assert "740/1,000" in text
    assert "✔ done" in text
    assert "· waiting" in text
    assert "✔ failed rows 0.004 ≤ 0.02" in text


def test_a_gate_that_asks_for_at_least_its_limit_says_so() -> None:
    gates = [
        {"name": "enough data", "value": 1.0, "limit": 0.5, "verdict": "pass"},
        {"name": "prediction shift", "value": None, "limit": None, "verdict": "not-judged"},
    ]
    text = drawn(rollout_picture(rollout(waves=[wave("a", "passed", 1, 1, gates=gates)]), NOW_MS))
    assert "✔ enough data 1 ≥ 0.5" in text
    assert "prediction shift not judged" in text


def test_shows_the_soak_time_that_is_left() -> None:
    assert "soaking 1:24" in drawn(rollout_picture(rollout(), NOW_MS))


def test_shows_a_failed_gate_and_the_reason_in_words() -> None:
    gate = {"name": "prediction shift", "value": 3.2, "limit": 0.5, "verdict": "fail"}
    document = rollout(
        state="rolling_back",
        reason="canary: prediction shift of gw-1 is 3.2, limit 0.5",
        waves=[wave("canary", "failed", 1, 2, failed=1, gates=[gate])],
    )
    text = drawn(rollout_picture(document, NOW_MS))
    assert "✘ prediction shift 3.2 > 0.5" in text
    assert "rolling_back: canary: prediction shift of gw-1 is 3.2, limit 0.5" in text


def test_names_a_state_it_does_not_know_instead_of_failing() -> None:
    document = rollout(state="hovering", waves=[wave("canary", "levitating", 0, 1)])
    assert "levitating" in drawn(rollout_picture(document, NOW_MS))


def test_the_line_says_the_same_without_a_terminal() -> None:
    line = rollout_line(rollout(state="paused", reason="too few rows"))
    assert line == (
        "r-42 paused [canary 100/100 done, 10 % 740/1000 soaking, 100 % 0/5000 waiting]: "
        "too few rows"
    )
