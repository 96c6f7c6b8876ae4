"""What this device is: the facts a variant's `requires` is compared with.

Keys are those of a hardware profile. Cheap enough for every start; nothing is imported for it.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from agent.installed import installed_version
from shoal.profiles import limit_facts, load_profile

RUNTIME_DISTRIBUTIONS = ("ai-edge-litert", "tflite-runtime")


def device_facts(profile: str, state_dir: Path) -> dict[str, str | int | float | bool]:
    """This machine's facts, no better than the profile it claims ("" claims none)."""
    runtime, version = _runtime()
    facts: dict[str, str | int | float | bool] = {
        "arch": platform.machine(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "disk_mb": shutil.disk_usage(state_dir).free // 2**20,
        "cpu_features": ",".join(_cpu_features()),
        "cpu_cores": os.cpu_count() or 1,
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "runtimes": "tflite" if runtime else "",
        "runtime": runtime,
        "runtime_version": version,
        "delegates": "",
    }
    return limit_facts(facts, load_profile(profile) if profile else None)


def _runtime() -> tuple[str, str]:
    for name in RUNTIME_DISTRIBUTIONS:
        version = installed_version(name)
        if version:
            return name, version
    return "", ""


_INTERESTING = {"sse4_2", "avx2", "avx512_vnni", "asimd", "asimddp", "neon", "fphp", "i8mm"}


def _cpu_features() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return sorted(_INTERESTING & set(value.split()))
    return []
