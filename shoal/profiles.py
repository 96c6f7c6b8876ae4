"""Hardware profiles: what a kind of device has, from `firmware_profiles/*.toml`.

Keys are those of `Requires` and of a device's own facts. A profile limits: a device that claims one
offers at most what its profile says, even on a larger machine (`limit_facts`).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from shoal.compatibility import Facts
from shoal.errors import InvalidInputError

_KNOWN = {
    "title": str,
    "arch": list,
    "memory_mb": int,
    "disk_mb": int,
    "cpu_features": list,
    "runtimes": list,
    "delegates": list,
    "sources": list,
}


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of hardware. `sources` are the pages its facts come from."""

    name: str
    title: str
    arch: tuple[str, ...]
    memory_mb: int
    disk_mb: int = 0
    cpu_features: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ("tflite",)
    delegates: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def profile_names() -> list[str]:
    """Names of all profiles that are installed."""
    folder = resources.files("firmware_profiles")
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def load_profile(name: str) -> Profile:
    """Read a profile, or raise `InvalidInputError` naming the ones there are."""
    names = profile_names()
    if name not in names:
        raise InvalidInputError(f"profile {name!r}: expected one of {', '.join(names)}")
    text = (resources.files("firmware_profiles") / f"{name}.toml").read_text(encoding="utf-8")
    return parse_profile(name, text)


def parse_profile(name: str, text: str) -> Profile:
    """Parse and check the text of a profile."""
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"profile {name}: {error}") from error
    problems = [f"{key}: is not known" for key in table if key not in _KNOWN]
    problems += [
        f"{key}: expected {kind.__name__}, got {table[key]!r}"
        for key, kind in _KNOWN.items()
        if key in table and not isinstance(table[key], kind)
    ]
    problems += [f"{key}: is missing" for key in ("title", "arch", "memory_mb") if key not in table]
    if problems:
        raise InvalidInputError(f"profile {name}: " + "; ".join(problems))
    values: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in table.items()
    }
    return Profile(name=name, **values)


def limit_facts(facts: Facts, profile: Profile | None) -> dict[str, str | int | float | bool]:
    """A device's facts, no better than its profile; the architecture is the machine's own."""
    limited = dict(facts)
    if profile is None:
        return limited
    for key in ("memory_mb", "disk_mb"):
        cap = getattr(profile, key)
        if cap:
            limited[key] = min(float(limited.get(key, cap)), cap)
    return limited
