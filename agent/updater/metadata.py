"""The TUF metadata of the repository: refreshed by python-tuf, then checked against the floors.

python-tuf does the client workflow. Around it stand what it leaves to its user: caps on every file,
a deadline for every transfer, floors that outlive its cache, and expiry judged by effective time
rather than by a clock that may stand in 1970. `refresh` may fail at any byte and be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets
from tuf.ngclient import Updater, UpdaterConfig

from agent.floors import TRUST_FOLDER, Floors, RoleFloor
from agent.updater.fetcher import BASE, MetadataFetcher
from agent.updater.moment import effective_now, raise_time, read_uptime
from agent.updater.refusals import as_refusal, expired
from shoal.errors import UntrustedError

CACHE_FOLDER = "metadata"
TOP_ROLES = ("root", "timestamp", "snapshot", "targets")
CONFIG = UpdaterConfig(
    max_root_rotations=256,
    root_max_length=64 * 1024,
    timestamp_max_length=16 * 1024,
    snapshot_max_length=64 * 1024,
    targets_max_length=1024 * 1024,
)
MAX_VERSION_STEP = 2**20
"""A version that jumps further is refused: it would leave no room for the next (fast-forward)."""


@dataclass(frozen=True, slots=True)
class RoleFile:
    """What our own checks need of one metadata file."""

    role: str
    version: int
    expires: datetime
    signed: dict[str, Any]


class MetadataClient:
    """One refresh over one fetcher. Whoever makes it holds the trust folder's lock."""

    def __init__(
        self, state_dir: Path, root: bytes, floors: Floors, fetcher: MetadataFetcher
    ) -> None:
        self._folder = state_dir / TRUST_FOLDER / CACHE_FOLDER
        self._folder.mkdir(exist_ok=True)
        self._fetcher = fetcher
        self.floors = floors
        """As raised by what was verified; for the caller to store."""
        try:
            self._updater = Updater(
                str(self._folder), BASE, fetcher=fetcher, config=CONFIG, bootstrap=root
            )
        except RepositoryError as error:
            raise UntrustedError(f"pinned root: {error}", code="no-root") from error

        self.latest: datetime | None = None
        """When what the offline keys signed expires; no signed time may lie beyond."""

    def refresh(self) -> None:
        """Bring root, timestamp, snapshot and targets up to date, or raise."""
        try:
            self._updater.refresh()
        except (RepositoryError, DownloadError) as error:
            raise as_refusal(error, self._fetcher.last, self._folder) from error
        try:
            self._check(list(self._top_files()))
        except UntrustedError as error:
            if error.code == "metadata-jump":
                self._forget()
            raise

    def find(self, path: str) -> TargetFile | None:
        """A target by its path; None where the repository has none such."""
        try:
            found = self._updater.get_targetinfo(path)
        except (RepositoryError, DownloadError) as error:
            raise as_refusal(error, self._fetcher.last, self._folder) from error
        if found is not None:
            self._check([one for one in self._delegated() if path in one.signed["targets"]])
        return found

    def _check(self, files: list[RoleFile]) -> None:
        """Floors, signed time, then expiry by effective time; floors rise only if all is well."""
        floors, root = self.floors, self._root()
        by_role = {one.role: one for one in files}
        for one in files:
            floors = _raise_role(floors, one, _keys_of(root, one.role))
        if (timestamp := by_role.get("timestamp")) is not None:
            self.latest = min(by_role["root"].expires, by_role["targets"].expires)
            if (issued := _issued(timestamp)) is not None:
                floors = raise_time(floors, issued, self.latest, read_uptime())
        now = effective_now(floors)
        for one in files:
            if now >= one.expires:
                raise expired(one.role, one.expires, now)
        self.floors = floors

    def _forget(self) -> None:
        """Drop versions that jumped from python-tuf's cache, or it would refuse all honest ones.

        The floors go on protecting from those before."""
        for role in ("timestamp", "snapshot"):
            (self._folder / f"{role}.json").unlink(missing_ok=True)

    def _root(self) -> Root:
        return Metadata[Root].from_bytes((self._folder / "root.json").read_bytes()).signed

    def _top_files(self) -> Iterator[RoleFile]:
        for role in TOP_ROLES:
            yield _read(self._folder / f"{role}.json", role)

    def _delegated(self) -> Iterator[RoleFile]:
        top = {f"{role}.json" for role in TOP_ROLES}
        delegations = self._top_delegations()
        for role in delegations:
            path = self._folder / f"{quote(role, '')}.json"
            if path.name not in top and path.exists():
                yield _read(path, role)

    def _top_delegations(self) -> list[str]:
        """Names of the delegated roles: hash bins, or roles by name."""
        data = (self._folder / "targets.json").read_bytes()
        targets = Metadata[Targets].from_bytes(data).signed
        delegations = targets.delegations
        if delegations is None:
            return []
        if delegations.succinct_roles is not None:
            return list(delegations.succinct_roles.get_roles())
        return list(delegations.roles or ())


def _read(path: Path, role: str) -> RoleFile:
    """A file that python-tuf has just verified."""
    signed = json.loads(path.read_bytes())["signed"]
    return RoleFile(role, signed["version"], datetime.fromisoformat(signed["expires"]), signed)


def _issued(timestamp: RoleFile) -> datetime | None:
    """The signed time that our repository puts into its timestamp."""
    text = timestamp.signed.get("x-issued")
    try:
        issued = None if text is None else datetime.fromisoformat(str(text))
    except ValueError as error:
        raise UntrustedError(f"timestamp: x-issued: {error}", code="metadata-malformed") from error
    if issued is not None and issued.tzinfo is None:
        raise UntrustedError("timestamp: x-issued: has no zone", code="metadata-malformed")
    return issued


def _keys_of(root: Root, role: str) -> list[str]:
    """Keys that guard a role's version: its own; the listed roles hang on snapshot's as well."""
    own = root.roles[role].keyids if role in TOP_ROLES else root.roles["targets"].keyids
    also = [] if role in ("root", "timestamp", "snapshot") else root.roles["snapshot"].keyids
    return sorted({*own, *also})


def _raise_role(floors: Floors, one: RoleFile, keys: list[str]) -> Floors:
    """Check a version against its floor and raise it.

    After a fast-forward the owners replace the role's keys (TUF 5.3.11); when a role's keys are
    all new, its versions begin anew. Root's never do.
    """
    before = floors.roles.get(one.role)
    if before is not None and (one.role == "root" or set(before.keys) & set(keys)):
        if one.version < before.version:
            raise UntrustedError(
                f"metadata {one.role}: version {one.version}, {before.version} was seen before",
                code="metadata-rollback",
            )
        if one.version > before.version + MAX_VERSION_STEP:
            raise UntrustedError(
                f"metadata {one.role}: version {one.version} is too far above {before.version}",
                code="metadata-jump",
            )
    after = RoleFloor(one.version, keys)
    if after == before:
        return floors
    return msgspec.structs.replace(floors, roles={**floors.roles, one.role: after})
