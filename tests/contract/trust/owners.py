"""The people who own a TUF repository, and what they can be tricked or forced into.

Made with python-tuf's own metadata, as the controller's is: consistent snapshots, offline root and
targets, online snapshot and timestamp, releases in hash bins.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from shoal.package import Package

VALID = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(days=1),
}
__all__ = ["DelegatedRole", "Owners"]


class Owners:
    """Holds every key, and publishes into a folder that a site serves."""

    def __init__(self, folder: Path, director_key: bytes, now: datetime | None = None) -> None:
        self.folder = folder
        self.now = now or datetime.now(UTC)
        (folder / "metadata").mkdir(parents=True)
        (folder / "files").mkdir()
        self.keys = {role: [CryptoSigner.generate_ed25519()] for role in VALID}
        self.root = Root(consistent_snapshot=True)
        self.targets = Targets()
        self.bin = Targets()
        self.snapshot_version = self.timestamp_version = 0
        self.expiry: dict[str, datetime] = {}
        """Of single roles, where it is not as usual."""
        self.issued: datetime | None = None
        for role, signers in self.keys.items():
            for one in signers:
                self.root.add_key(one.public_key, role)
        self.targets.delegations = Delegations({}, succinct_roles=SuccinctRoles([], 1, 1, "bin"))
        for one in self.keys["targets"]:
            for name in ("bin-0", "bin-1"):
                self.targets.add_key(one.public_key, name)
        self.set_director([director_key])
        self.sign_root()
        self.publish()

    # What the owners do

    @property
    def first_root(self) -> bytes:
        """What enrolment hands to a device."""
        return (self.folder / "metadata" / "1.root.json").read_bytes()

    def set_director(self, keys: list[bytes], **changes: Any) -> None:
        """Say who may sign desired states; to be published."""
        document = {
            "keys": [base64.b64encode(key).decode() for key in keys],
            "threshold": 1,
            "max_validity_seconds": 8 * 86400,
            "min_sequence": 0,
            **changes,
        }
        data = json.dumps(document).encode()
        self.targets.targets["trust/director.json"] = self.store("trust/director.json", data)

    def store(self, path: str, data: bytes, custom: dict[str, Any] | None = None) -> TargetFile:
        """Put bytes where files are fetched; the target that names them."""
        target = TargetFile.from_data(path, data, ["sha256"])
        if custom:
            target.unrecognized_fields["custom"] = custom
        (self.folder / "files" / target.hashes["sha256"]).write_bytes(data)
        return target

    def add(self, package: Package, **custom: Any) -> TargetFile:
        """Release a package; to be published."""
        manifest = package.manifest
        told = {
            "model": manifest.model,
            "version": manifest.version,
            "release_sequence": manifest.sequence,
        }
        path = f"releases/{manifest.model}/{manifest.sequence}.json"
        target = self.store(path, package.manifest_bytes, told | custom)
        for entry in manifest.files:
            (self.folder / "files" / entry.sha256).write_bytes(package.files[entry.name])
        self.bin.targets[path] = target
        return target

    def release(self, package: Package) -> Package:
        """Release and publish."""
        self.add(package)
        self.publish()
        return package

    def publish(self) -> None:
        """Sign targets, bins, snapshot and timestamp anew."""
        self.targets.version += 1 if self.snapshot_version else 0
        self.bin.version = self.targets.version
        self._write("targets", self.targets, f"{self.targets.version}.targets.json")
        for name in ("bin-0", "bin-1"):
            self._write("targets", self.bin, f"{self.bin.version}.{name}.json")
        self.sign_snapshot()

    def sign_snapshot(self, **versions: int) -> None:
        """Sign a snapshot, of these versions of roles, and a timestamp of it."""
        self.snapshot_version += 1
        listed = {"targets": self.targets.version, "bin-0": self.bin.version}
        listed |= {"bin-1": self.bin.version} | {
            k.replace("_", "-"): v for k, v in versions.items()
        }
        snapshot = Snapshot(
            version=self.snapshot_version,
            meta={f"{role}.json": MetaFile(version) for role, version in listed.items()},
        )
        self._write("snapshot", snapshot, f"{self.snapshot_version}.snapshot.json")
        self.sign_timestamp()

    def sign_timestamp(self, **changes: Any) -> None:
        """Sign a timestamp of the newest snapshot."""
        self.timestamp_version += 1
        timestamp = Timestamp(
            version=changes.get("version", self.timestamp_version),
            snapshot_meta=MetaFile(changes.get("snapshot", self.snapshot_version)),
            unrecognized_fields={"x-issued": _text(self.issued or self.now)},
        )
        self._write("timestamp", timestamp, "timestamp.json")

    def rotate(self, role: str) -> None:
        """Replace every key of a role, in a new root signed by the old and the new keys."""
        before = self.keys[role]
        self.keys[role] = [CryptoSigner.generate_ed25519()]
        for one in before:
            self.root.revoke_key(one.public_key.keyid, role)
        self.root.add_key(self.keys[role][0].public_key, role)
        self.root.version += 1
        self.sign_root(also=before if role == "root" else [])

    def sign_root(self, also: list[CryptoSigner] | None = None) -> None:
        """Sign the root as it is."""
        name = f"{self.root.version}.root.json"
        self._write("root", self.root, name, signers=[*self.keys["root"], *(also or [])])

    # What others may lay hands on

    def read(self, name: str) -> bytes:
        """A metadata file as it was published."""
        return (self.folder / "metadata" / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Put something in its place."""
        (self.folder / "metadata" / name).write_bytes(data)

    def _write(
        self, role: str, signed: Any, name: str, signers: list[CryptoSigner] | None = None
    ) -> None:
        signed.expires = self.expiry.get(role, self.now + VALID[role]).replace(microsecond=0)
        metadata = Metadata(signed)
        for one in signers or self.keys[role]:
            metadata.sign(one, append=True)
        self.write(name, metadata.to_bytes(JSONSerializer(compact=True)))


def digest(data: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(data).hexdigest()


def _text(moment: datetime) -> str:
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")
