"""Taking secrets out of text and settings before they leave the device.

Two nets: the secrets that this device really holds are replaced wherever they stand, and what
looks like one (a key called `password`, a bearer token, credentials in an address) goes too.

>>> scrub_text("GET http://me:pw@host/x?token=abc Authorization: Bearer zzz", set())
'GET http://***@host/x?token=*** Authorization: Bearer ***'
>>> scrub({"headers": {"authorization": "Basic abc"}, "path": "/tmp"}, set())
{'headers': {'authorization': '***'}, 'path': '/tmp'}
"""

from __future__ import annotations

import base64
import contextlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.trust import DEVICE_KEY_NAME

HIDDEN = "***"
# An Ed25519 key in PKCS #8, as identity.pem has it, begins so.
PKCS8_HEAD = bytes.fromhex("302e020100300506032b657004220420")
MAX_SECRET = 4096
MIN_SECRET = 6
"""A shorter text would blank half of what is readable."""

_WORDS = r"pass(?:word|wd|phrase)?|secret|token|api[-_]?key|private[-_]?key|credentials?"
_SECRET_KEY = re.compile(rf"(?:{_WORDS}|authorization|cookie)", re.IGNORECASE)
_LOGIN = re.compile(r"\w+:/{1,3}[^/@:\s]*:([^/@\s]+)@")
_RULES = (
    (re.compile(r"(\w+:/{1,3})[^/@\s]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(rf"\b([\w-]*(?:{_WORDS})\w*[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;]+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*-----", re.DOTALL), HIDDEN),
)


def held_secrets(state_dir: Path, config: Path | None = None) -> set[str]:
    """The secrets that enrolment left here and those of the configuration, as they are written."""
    found: set[str] = set()
    if config is not None:
        with contextlib.suppress(OSError, ValueError):
            found |= set(_in_settings(tomllib.loads(config.read_text(encoding="utf-8"))))
    try:
        key = (state_dir / DEVICE_KEY_NAME).read_bytes().strip()
        found.add(key.decode("ascii"))
        raw = base64.b64decode(key)
        found |= {
            raw.hex(),
            base64.b64encode(PKCS8_HEAD + raw).decode(),
        }  # identity.pem has the last
    except (OSError, ValueError):
        pass
    return {one for one in found if len(one) >= MIN_SECRET}


def _in_settings(value: Any, key: str = "") -> Iterator[str]:
    """Values of keys that name a secret, logins in addresses, and what lies in token files."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _in_settings(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _in_settings(one, key)
    elif isinstance(value, str):
        if key.endswith("_file"):
            with contextlib.suppress(OSError, ValueError):
                yield Path(value).read_text(encoding="utf-8")[:MAX_SECRET].strip()
        elif _SECRET_KEY.search(key):
            yield value
        if login := _LOGIN.search(value):
            yield login[1]


def scrub_text(text: str, secrets: set[str]) -> str:
    """`text` without secrets."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def scrub(value: Any, secrets: set[str]) -> Any:
    """A document without secrets; its shape stays."""
    if isinstance(value, dict):
        return {
            key: HIDDEN if _SECRET_KEY.search(str(key)) and _holds(one) else scrub(one, secrets)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [scrub(one, secrets) for one in value]
    return scrub_text(value, secrets) if isinstance(value, str) else value


def _holds(value: Any) -> bool:
    """Whether a value can be a secret: a table or a switch is looked into, or left."""
    return isinstance(value, str) and bool(value)
