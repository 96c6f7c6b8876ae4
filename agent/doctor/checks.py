"""The checks: each returns a sentence, or raises `UnwellError` with the fix."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from agent.access import BROKER_NAME, IDENTITY_NAME, load_broker
from agent.clock import find_probe
from agent.config import AgentConfig
from agent.doctor import UnwellError
from agent.doctor.network import ask_broker, ask_controller
from agent.doctor.runtime import try_model
from agent.floors import read_floors
from agent.introspect import device_facts
from agent.state_files import open_database
from agent.trust import DEVICE_KEY_NAME, TRUST_NAME, load_root, load_trust
from shoal.errors import ShoalError
from shoal.profiles import load_profile, profile_names

LEAST_FREE_BYTES = 64 * 2**20
PRIVATE_FILES = (BROKER_NAME, IDENTITY_NAME, TRUST_NAME, DEVICE_KEY_NAME)
ENROL = "run shoal-agent enrol with a token from `shoal enrolment-token create`"


def check_state_folder(config: AgentConfig) -> str:
    """There, private, and ours."""
    folder = config.state_dir
    try:
        found = folder.stat()
    except OSError as error:
        raise UnwellError(f"{folder}: {error.strerror}", ENROL) from error
    owner = f"chown -R {os.geteuid()} {folder}"
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        raise UnwellError(f"{folder}: belongs to user {found.st_uid}", owner)
    if found.st_mode & 0o077:
        mode = stat.filemode(found.st_mode)
        raise UnwellError(f"{folder}: {mode}, others can look into it", f"chmod 700 {folder}")
    for name in PRIVATE_FILES:
        path = folder / name
        if path.exists() and path.stat().st_mode & 0o077:
            raise UnwellError(f"{path}: others can read it", f"chmod 600 {path}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UnwellError(f"{folder}: cannot be written", "mount it writable, or chown it")
    return f"{folder}: private and writable"


def check_disk(config: AgentConfig) -> str:
    """Room for a release, and a file can really be written."""
    folder = config.state_dir if config.state_dir.exists() else config.state_dir.parent
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise UnwellError(
            f"{folder}: {free // 2**20} MiB free, {LEAST_FREE_BYTES // 2**20} needed",
            "make room: old captures, logs, or files that are not the agent's",
        )
    probe = folder / ".doctor"
    try:
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise UnwellError(f"{folder}: {error.strerror}", "mount it writable") from error
    return f"{free // 2**20} MiB free"


def check_clock(config: AgentConfig) -> str:
    """Synchronised: signatures expire by it, and windows are dated by it."""
    if not find_probe()():
        raise UnwellError(
            "the clock is not synchronised, or nothing here can tell",
            "timedatectl set-ntp true, or install chrony",
        )
    return "synchronised"


def check_credentials(config: AgentConfig) -> str:
    """What enrolment left: keys to believe and a login."""
    try:
        trust, access = load_trust(config.state_dir), load_broker(config.state_dir)
        load_root(config.state_dir)
    except ShoalError as error:
        raise UnwellError(error.sentence, ENROL) from error
    if read_floors(config.state_dir) is None:
        raise UnwellError(f"{config.state_dir}/trust: the floors are lost", ENROL)
    if not (config.state_dir / DEVICE_KEY_NAME).exists():
        raise UnwellError(f"{config.state_dir}: {DEVICE_KEY_NAME} is missing", ENROL)
    return f"enrolled as {access.device}, releases from {trust.repository_url}, root pinned"


def check_broker(config: AgentConfig) -> str:
    """Reachable, and it knows us; see `network.ask_broker` for while the agent runs."""
    try:
        access = load_broker(config.state_dir)
    except ShoalError as error:
        raise UnwellError(error.sentence, ENROL) from error
    return ask_broker(config, access)


def check_controller(config: AgentConfig) -> str:
    """Reachable by HTTP, for releases."""
    return ask_controller(config.controller_url)


def check_profile(config: AgentConfig) -> str:
    """A profile that exists, and the machine is of its architecture."""
    if not config.profile:
        return "none claimed"
    if config.profile not in profile_names():
        raise UnwellError(
            f"profile {config.profile!r}: not installed",
            f"device.profile: one of {', '.join(profile_names())}",
        )
    profile = load_profile(config.profile)
    folder = config.state_dir if config.state_dir.exists() else Path("/")
    arch = device_facts("", folder)["arch"]
    if arch not in profile.arch:
        raise UnwellError(
            f"{config.profile} is {' or '.join(profile.arch)}, this machine is {arch}",
            "device.profile: the profile of this machine",
        )
    return f"{config.profile}: {profile.title}"


def check_runtime(config: AgentConfig) -> str:
    """A tiny model is loaded and answers in a worker."""
    return asyncio.run(try_model(config.num_threads))


def check_outbox(config: AgentConfig) -> str:
    """Whole, and not growing over its caps."""
    try:
        with closing(open_database(config.outbox_db)) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            (rows,) = database.execute("SELECT COUNT(*) FROM messages").fetchone()
            (lost,) = database.execute("SELECT COALESCE(SUM(count), 0) FROM dropped").fetchone()
    except (sqlite3.Error, ShoalError) as error:
        raise UnwellError(
            f"{config.outbox_db.name}: {error}",
            "start the agent: it sets a broken outbox aside; or free the disk",
        ) from error
    if verdict != "ok":
        raise UnwellError(
            f"{config.outbox_db.name}: {verdict}", "restart the agent: it sets it aside"
        )
    return f"{rows} messages not acked, {lost} lost to the caps so far"


CHECKS: dict[str, Callable[[AgentConfig], str]] = {
    "state folder": check_state_folder,
    "disk": check_disk,
    "clock": check_clock,
    "credentials": check_credentials,
    "broker": check_broker,
    "controller": check_controller,
    "profile": check_profile,
    "runtime": check_runtime,
    "outbox": check_outbox,
}
