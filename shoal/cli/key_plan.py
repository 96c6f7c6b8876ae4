"""`signers.json` in a folder of keys: who shall sign as root and as targets, and how many must."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from shoal.errors import InvalidInputError
from shoal.trust.key_files import read_public
from shoal.trust.metadata import RoleKeys

PLAN_FILE = "signers.json"


class RolePlan(Struct, forbid_unknown_fields=True):
    """One role."""

    threshold: int
    keys: list[bytes]


class Plan(Struct, forbid_unknown_fields=True):
    """The file; public, it holds no secret."""

    root: RolePlan
    targets: RolePlan


def write_plan(folder: Path, root: RoleKeys, targets: RoleKeys) -> Path:
    """Write the plan of a new folder."""
    plan = Plan(
        RolePlan(root.threshold, list(root.keys)), RolePlan(targets.threshold, list(targets.keys))
    )
    path = folder / PLAN_FILE
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")
    return path


def read_plan(folder: Path) -> tuple[dict[str, RoleKeys], list[Path]]:
    """Keys of both roles, and which of their private halves lie in the folder."""
    path = folder / PLAN_FILE
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidInputError(f"{path}: {error}; made by shoal keys init") from error
    roles = {
        "root": RoleKeys(tuple(plan.root.keys), plan.root.threshold),
        "targets": RoleKeys(tuple(plan.targets.keys), plan.targets.threshold),
    }
    named = {*plan.root.keys, *plan.targets.keys}
    return roles, [one for one in sorted(folder.glob("*.key")) if read_public(one) in named]
