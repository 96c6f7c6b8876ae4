"""What this device is: the facts a variant's `requires` is compared with.

Keys are those of a hardware profile. Cheap enough for every start; nothing is imported for it.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from agent.installed import (
    LIBRARY_PACKAGE,
    find_tflite_library,
    installed_version,
    runtime_entry_points,
)
from shoal.compatibility import sensor_text
from shoal.profiles import limit_facts, load_profile, runtime_facts
from shoal.protocol.manifest import Sensor

RUNTIME_DISTRIBUTIONS = ("ai-edge-litert", "tflite-runtime")
"""In the order in which workers try them."""
C_LIBRARY = "tflite-c"
OTHER_DISTRIBUTIONS = ("onnxruntime", "numpy")
PACKAGED_LIBRARY = "2.17.1"
DELEGATE_LIBRARIES = {"edgetpu": "libedgetpu.so.1", "vx": "libvx_delegate.so"}
LIBRARY_FOLDERS = ("/usr/lib", "/usr/local/lib", "/usr/lib/aarch64-linux-gnu",
                   "/usr/lib/arm-linux-gnueabihf", "/usr/lib/x86_64-linux-gnu")  # fmt: skip
CGROUP_MEMORY = "/sys/fs/cgroup/memory.max"
MEBIBYTE = 2**20

Facts = dict[str, str | int | float | bool]


def device_facts(profile: str, state_dir: Path, sensors: Sequence[Sensor] = ()) -> Facts:
    """This machine's facts, no better than the profile it claims ("" claims none)."""
    facts: Facts = {
        "arch": platform.machine(),
        "memory_mb": _memory_mb(),
        "disk_mb": shutil.disk_usage(state_dir).free // MEBIBYTE,
        "cpu_features": ",".join(_cpu_features()),
        "cpu_cores": os.cpu_count() or 1,
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "delegates": ",".join(_delegates()),
        "sensors": ",".join(map(sensor_text, sensors)),
        **runtime_facts(installed_runtimes()),
    }
    return limit_facts(facts, load_profile(profile) if profile else None)


def with_free_memory(facts: Facts) -> Facts:
    """Facts with the memory that is free at the moment, for a check right before staging."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return facts
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return facts | {"memory_free_mb": int(line.split()[1]) // 1024}
    return facts


def installed_runtimes() -> dict[str, str]:
    """Runtime → version of those that may be used, in the order in which workers try them."""
    found = {name: installed_version(name) for name in RUNTIME_DISTRIBUTIONS}
    if find_tflite_library() is not None:
        # it tells its version only once loaded; the package's is known
        found[C_LIBRARY] = PACKAGED_LIBRARY if installed_version(LIBRARY_PACKAGE) else "unknown"
    found |= {name: installed_version(name) for name in OTHER_DISTRIBUTIONS}
    found = {name: version for name, version in found.items() if version}
    for name, _, version in runtime_entry_points():
        found.setdefault(name, version)
    wanted = [name.strip() for name in os.environ.get("SHOAL_RUNTIMES", "").split(",")]
    if not any(wanted):
        return found
    return {name: found[name] for name in wanted if name in found}


def prefers_c_library() -> bool:
    """Whether workers run `.tflite` files by the C library, and so need no numpy: it is the only
    runtime for them here, or `SHOAL_RUNTIMES` names it first."""
    known = (*RUNTIME_DISTRIBUTIONS, C_LIBRARY)
    return next((name for name in installed_runtimes() if name in known), "") == C_LIBRARY


def _memory_mb() -> int:
    """Memory of the machine, or what its container or unit may use of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path(CGROUP_MEMORY).read_text(encoding="ascii").strip()
    except OSError:
        limit = "max"  # no limit, or an older kernel
    return min(memory, int(limit) if limit.isdigit() else memory) // MEBIBYTE


def _delegates() -> list[str]:
    return [
        name
        for name, library in DELEGATE_LIBRARIES.items()
        if any((Path(folder) / library).exists() for folder in LIBRARY_FOLDERS)
    ]


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
