"""Writing TOML, which the standard library only reads. Enough for configuration files.

>>> print(to_toml({"device": {"id": "gw-1", "rate": 2.0}}), end="")
[device]
id = "gw-1"
rate = 2.0
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_toml(document: Mapping[str, Any], prefix: str = "") -> str:
    """Return `document` as TOML: tables as sections, lists of tables as `[[…]]`."""
    plain = {key: value for key, value in document.items() if not _nested(value)}
    parts = []
    if plain:
        header = f"[{prefix}]\n" if prefix else ""
        parts.append(
            header + "".join(f"{_key(key)} = {_value(one)}\n" for key, one in plain.items())
        )
    for key, value in document.items():
        path = f"{prefix}.{_key(key)}" if prefix else _key(key)
        if isinstance(value, Mapping):
            parts.append(to_toml(value, path) or f"[{path}]\n")
        elif _nested(value):
            parts += [_list_item(one, path) for one in value]
    return "\n".join(parts)


def _list_item(table: Mapping[str, Any], path: str) -> str:
    return f"[[{path}]]\n" + "".join(f"{_key(key)} = {_value(one)}\n" for key, one in table.items())


def _nested(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return (
        isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else json.dumps(key, ensure_ascii=False)
