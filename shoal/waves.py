"""Waves as an operator types them: `--wave 2 --wave 25% --wave 100%`. Pure.

>>> parse_waves(["2", "100%"])
[{'name': 'canary', 'devices': 2}, {'name': '100 %', 'share': 1.0}]
"""

from __future__ import annotations

import re
from typing import Any

from shoal.errors import InvalidInputError

APPROVAL = "+approval"
"""Ends a wave that another person must approve: `25%+approval`."""
_COUNT = re.compile(r"[1-9][0-9]{0,6}\Z")
_GROWING = re.compile(r"([1-9][0-9]{0,6})x([1-9][0-9]{0,1}(?:\.[0-9])?)(?:/([1-9][0-9]{0,6}))?\Z")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%\Z")


def parse_waves(texts: list[str]) -> list[dict[str, Any]]:
    """Return the waves of a rollout's specification, or raise `InvalidInputError`.

    The first wave is the canary where it is a count; shares are of all devices so far.
    """
    waves = [_parse(text) for text in texts]
    if "devices" in waves[0]:
        waves[0]["name"] = "canary"
    return waves


def _parse(text: str) -> dict[str, Any]:
    plain = text.removesuffix(APPROVAL)
    return _parse_plain(plain) | ({"approval": True} if plain != text else {})


def _parse_plain(text: str) -> dict[str, Any]:
    if _COUNT.match(text):
        return {"name": f"{text} devices", "devices": int(text)}
    share = _SHARE.match(text)
    if share and 0 < float(share[1]) <= 100:
        return {"name": f"{float(share[1]):g} %", "share": float(share[1]) / 100}
    if growing := _GROWING.match(text):
        found = {"name": "wave", "base": int(growing[1]), "factor": float(growing[2])}
        return found | ({"cap": int(growing[3])} if growing[3] else {})
    if ":" in text:
        return {"name": text[:40], "selector": text}
    raise InvalidInputError(
        f"wave {text[:40]!r}: expected a count (2), a share (25%), a selector (site:ulm) or waves "
        "that grow (1x4, 1x4/500), each with or without +approval"
    )
