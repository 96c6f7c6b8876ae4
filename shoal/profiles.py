"""Hardware profiles: what a kind of device has, from `firmware_profiles/*.toml`.

Keys are those of `Requires` and of a device's own facts; `sources` says for each where it is from.
A profile limits: a device that claims one offers at most what its profile says, even on a larger
machine (`limit_facts`). It also stands in for a device that is not there yet (`profile_facts`).
"""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from shoal.compatibility import RUNTIME_KINDS, Facts, sensor_text
from shoal.errors import InvalidInputError
from shoal.protocol.manifest import Sensor

LIMITS = ("memory_mb", "disk_mb", "cpu_cores")
Count = Annotated[int, Meta(ge=0)]


class Profile(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One kind of hardware."""

    name: str = ""
    title: str
    arch: Annotated[list[str], Meta(min_length=1)]
    """As `platform.machine()` says it; the first one stands for the profile."""
    memory_mb: Count
    disk_mb: Count = 0
    cpu_cores: Count = 0
    cpu_features: list[str] = []
    libc: str = ""
    python: str = ""
    runtimes: dict[str, str] = {}
    """Runtime → version; operator versions follow from both."""
    delegates: list[str] = []
    sensors: list[Sensor] = []
    sources: dict[str, str] = {}
    """Key → page or data sheet that says it."""


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
        profile = msgspec.convert({**tomllib.loads(text), "name": name}, Profile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInputError(f"profile {name}: {error}") from error
    facts = set(msgspec.structs.asdict(profile)) - {"name", "title", "sources"}
    problems = [f"sources.{key}: is no fact of a profile" for key in profile.sources
                if key not in facts]  # fmt: skip
    problems += [
        f"runtimes.{one}: is not known, expected one of {', '.join(RUNTIME_KINDS)}"
        for one in profile.runtimes
        if one not in RUNTIME_KINDS
    ]
    if problems:
        raise InvalidInputError(f"profile {name}: " + "; ".join(problems))
    return profile


def profile_facts(profile: Profile) -> dict[str, str | int | float | bool]:
    """The facts a device of this kind is expected to report."""
    facts: dict[str, str | int | float | bool] = {
        "arch": profile.arch[0],
        "cpu_features": ",".join(profile.cpu_features),
        "libc": profile.libc,
        "python": profile.python,
        "delegates": ",".join(profile.delegates),
        "sensors": ",".join(map(sensor_text, profile.sensors)),
        **{key: getattr(profile, key) for key in LIMITS},
    }
    return facts | runtime_facts(profile.runtimes)


def runtime_facts(versions: dict[str, str]) -> dict[str, str | int | float | bool]:
    """Facts of the runtimes of a device, the preferred one of each kind first in `versions`.

    A third party's runtime is named `<kind>.<name>`.
    """
    found: dict[str, str] = {}
    for name, version in versions.items():
        kind, _, own = name.partition(".")
        found.setdefault(RUNTIME_KINDS.get(name, kind), f"{own or name} {version}")
    runtime, _, version = found.get("tflite", "").partition(" ")
    facts: dict[str, str | int | float | bool] = {"runtimes": ",".join(found)}
    facts |= {f"runtime_{kind}": text for kind, text in found.items()}
    return facts | {"runtime": runtime, "runtime_version": version}


def limit_facts(facts: Facts, profile: Profile | None) -> dict[str, str | int | float | bool]:
    """A device's facts, no better than its profile; the architecture is the machine's own."""
    limited = dict(facts)
    if profile is None:
        return limited
    for key in LIMITS:
        cap = getattr(profile, key)
        if cap:
            limited[key] = min(int(limited.get(key, cap)), cap)
    return limited
