"""Numbers, times and states in words, for templates. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

Document = dict[str, Any]

DASH = "–"
BAD_STATES = frozenset(
    {"failed", "rejected", "rolled_back", "rollback_failed", "aborted", "reverted"}
)
_SEVERITY = {
    "none": "as in training",
    "moderate": "moved",
    "strong": "moved far",
    "too-little-data": "too little data to say",
}
_STATUS = {
    "ok": "Everything runs.",
    "updating": "A release is being installed.",
    "offline": "Nothing has been heard from it lately.",
    "unknown": "Enrolled, but never heard of.",
}


def number(value: float | None) -> str:
    """A count with thousands apart.

    >>> number(89983)
    '89,983'
    """
    return DASH if value is None else f"{value:,.0f}"


def quantity(value: float | None) -> str:
    """A measured value with four digits that count.

    >>> quantity(1013.25), quantity(0.1234567), quantity(None)
    ('1,013', '0.1235', '–')
    """
    if value is None:
        return DASH
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def rate(value: float | None) -> str:
    """A rate, three digits.

    >>> rate(79.96), rate(0.01667)
    ('80', '0.0167')
    """
    return DASH if value is None else number(value) if value >= 100 else f"{value:.3g}"


def percent(ratio: float | None) -> str:
    """A ratio in per cent.

    >>> percent(0.004), percent(1.0), percent(0)
    ('0.4 %', '100 %', '0 %')
    """
    if ratio is None:
        return DASH
    return f"{ratio * 100:.2g} %" if ratio < 0.1 else f"{ratio * 100:.0f} %"


def percent_of(ratio: float | None) -> str:
    """A share of a limit, in whole per cent, however far above it.

    >>> percent_of(0.034), percent_of(1.7)
    ('3 %', '170 %')
    """
    return DASH if ratio is None else f"{ratio * 100:.0f} %"


def latency(microseconds: float | None) -> str:
    """A latency in the unit that reads best.

    >>> latency(48.2), latency(18400), latency(None)
    ('48 µs', '18.4 ms', '–')
    """
    if microseconds is None:
        return DASH
    return f"{microseconds:.0f} µs" if microseconds < 1000 else f"{microseconds / 1000:.3g} ms"


def size(count: float | None) -> str:
    """Bytes in the unit that reads best.

    >>> size(512), size(30_500_000)
    ('512 B', '29.1 MB')
    """
    if count is None:
        return DASH
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"


def moment(ms: int | None) -> Markup | str:
    """A time that scripts may turn into "12 s ago"."""
    if ms is None:
        return "never"
    when = datetime.fromtimestamp(ms / 1000, UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        when.strftime("%Y-%m-%d %H:%M:%S UTC"),
        when.strftime("%Y-%m-%d %H:%M:%S"),
    )


def plain(state: str) -> str:
    """A state as people write it.

    >>> plain("rolling_back")
    'rolling back'
    """
    return state.replace("_", " ")


def tone(state: str) -> str:
    """Colour of a state, verdict or severity: good, bad, warn, busy or quiet."""
    return _TONES.get(state, "bad" if state in BAD_STATES else "quiet")


_TONES = {
    **dict.fromkeys(("ok", "succeeded", "passed", "pass", "committed", "none", "watching"), "good"),
    **dict.fromkeys(("failing", "fail", "error", "timed_out", "strong", "drifting"), "bad"),
    **dict.fromkeys(
        ("degraded", "paused", "awaiting_approval", "inconclusive", "warning", "moderate",
         "uncalibrated"), "warn"
    ),
    **dict.fromkeys(
        ("updating", "running", "releasing", "soaking", "evaluating", "rolling_back", "accepted",
         "downloading", "staged", "verifying", "shadowing", "activating", "offered"),
        "busy",
    ),
}  # fmt: skip


def status_words(device: Document) -> str:
    """Why a device has the status that it has."""
    if device["revoked_ms"]:
        return "Revoked: it is cut off at the broker and gets no assignments."
    status = device["status"]
    if status in ("offline", "unknown"):
        return _STATUS[status]
    return device["reason"] or _STATUS.get(status, "The device gave no reason.")


def drift_words(severity: str) -> str:
    """How far a field is from the baseline, in words."""
    return _SEVERITY.get(severity, severity)


def field_words(row: Document) -> str:
    """One sentence on a field's live values beside those of training."""
    unit = f" {row['unit']}" if row["unit"] else ""
    sentence = (
        f"mean {quantity(row['mean'])}{unit}, in training {quantity(row['baseline_mean'])}{unit}"
    )
    if row["mean"] is not None and row["baseline_std"] > 0:
        steps = (row["mean"] - row["baseline_mean"]) / row["baseline_std"]
        sentence += f" ({steps:+.1f} of training's deviations)"
    for ratio, what in (
        (row["missing_ratio"], "missing"),
        (row["out_of_range_ratio"], "out of range"),
    ):
        if ratio > 0:
            sentence += f", {percent(ratio)} {what}"
    return sentence


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "quantity": quantity,
    "rate": rate,
    "percent": percent,
    "percent_of": percent_of,
    "latency": latency,
    "size": size,
    "moment": moment,
    "plain": plain,
    "tone": tone,
    "status_words": status_words,
    "drift_words": drift_words,
    "field_words": field_words,
}
