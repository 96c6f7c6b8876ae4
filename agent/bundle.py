"""The support bundle: what a person needs to help from afar, bounded and without secrets."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from agent.scrub import held_secrets, scrub
from shoal import __version__

MAX_BUNDLE = 256 * 1024
"""Characters; log lines give way first."""
DOCTOR_SECONDS = 90.0
MAX_CONFIG_BYTES = 64 * 1024


async def make_bundle(config: Path, state_dir: Path, live: dict[str, Any], logs: list[str]) -> str:
    """The bundle as JSON: `live` is what the running agent knows, `logs` its newest lines."""
    document = {
        "agent_version": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "uptime_seconds": _uptime(),
        **live,
        "configuration": _configuration(config),
        "state_folder": _listing(state_dir),
        "doctor": await run_doctor(config),
        "logs": logs,
    }
    secrets = held_secrets(state_dir, config)
    clean = scrub(document, secrets)
    while len(text := json.dumps(clean)) > MAX_BUNDLE and clean["logs"]:
        clean["logs"] = clean["logs"][len(clean["logs"]) // 4 + 1 :]
    if len(text) > MAX_BUNDLE:  # a configuration of unheard size
        clean["configuration"] = "left out: too long"
        text = json.dumps(clean)
    return text[:MAX_BUNDLE] if len(text) > MAX_BUNDLE else text


async def run_doctor(config: Path) -> Any:
    """What `shoal-agent doctor` finds, in a process of its own: it loads a model."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent.cli",
        "doctor",
        "--json",
        "--config",
        str(config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(DOCTOR_SECONDS):
            output, _ = await process.communicate()
        return json.loads(output)
    except (TimeoutError, ValueError) as error:
        return {"error": f"doctor: {error!r}"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _configuration(path: Path) -> str:
    """The file as it stands: integrators know it by its lines. Scrubbed with all the rest."""
    try:
        data = path.read_bytes()[:MAX_CONFIG_BYTES]
    except OSError as error:
        return f"{path}: {error}"
    return data.decode("utf-8", "replace")


def _listing(folder: Path) -> list[dict[str, Any]]:
    """Names, sizes and modes of what lies in the state folder; no contents."""
    try:
        found = sorted(folder.iterdir())[:200]
        return [
            {"name": one.name, "bytes": one.stat().st_size, "mode": oct(one.stat().st_mode & 0o777)}
            for one in found
        ]
    except OSError as error:
        return [{"error": str(error)}]


def _uptime() -> float:
    try:
        return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return float(os.times().elapsed)
