"""The commands of those who sign, as people type them: several signers, rotation, revocation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = str(Path(__file__).resolve().parents[3] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

from local_fleet.fleet import LocalFleet  # noqa: E402 - lives in scripts/

from shoal.package import file_entries, make_package, write_package  # noqa: E402
from shoal.protocol.manifest import (  # noqa: E402
    Contract,
    Feature,
    Manifest,
    OutputField,
    Variant,
)

BIN = Path(sys.executable).parent


def _package(signer, sequence, path):
    files = {"model.tflite": b"model"}
    manifest = Manifest(
        model="pump",
        version=f"{sequence}.0",
        sequence=sequence,
        created="2026-01-01T00:00:00+00:00",
        files=file_entries(files),
        variants=[Variant(name="only", file="model.tflite")],
        contract=Contract(features=[Feature(name="t")], outputs=[OutputField(name="y")]),
    )
    write_package(make_package(manifest, files, signer), path)


@pytest.fixture
def desk(tmp_path):
    """A controller without a root, a folder of signers, and a shell in it."""
    with LocalFleet(tmp_path / "fleet", broker="nats") as fleet:
        fleet.start_controller(with_root=False)
        folder = tmp_path / "people"
        folder.mkdir()
        (folder / "passphrase").write_text("correct horse battery\n")
        (folder / "other").write_text("another passphrase\n")
        for sequence in (1, 2, 3):
            _package(fleet.signer, sequence, folder / f"pump-{sequence}.shoal")
        environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "SHOAL_URL": fleet.url,
            "SHOAL_TOKEN_FILE": str(fleet.controller.token_file),
            "SHOAL_KEY_PASSPHRASE_FILE": str(folder / "passphrase"),
            "CONFIG": str(fleet.controller.config),
        }

        def run(commands: str, *, refused: bool = False) -> str:
            done = subprocess.run(
                ["bash", "-euc", commands],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=110,
                check=False,
            )
            said = done.stdout + done.stderr
            assert (done.returncode != 0) == refused, said
            return said

        yield run


def _trust(desk):
    return json.loads(desk("shoal trust show --json"))


def test_two_of_two_signers_publish_rotate_and_revoke(desk):
    desk(
        "shoal keys init ann --root-keys 0 --targets-keys 1 && "
        "shoal keys init bob --root-keys 1 --targets-keys 1 --targets-threshold 2 "
        "--targets-public ann/targets-1.key.pub && "
        "test $(stat -c %a bob/root-1.key) = 600"
    )
    assert "targets 1 of 2" in desk("shoal trust init bob --out first.json")
    assert "signatures" in desk("shoal trust import first.json", refused=True)
    said = desk("shoal trust sign first.json --key ann/targets-1.key --yes")
    assert "role targets: 2 of 2 keys sign" in said
    desk("shoal trust import first.json")
    assert [one["threshold"] for one in _trust(desk)["roles"]] == [1, 2, 1, 1]

    # A release, by two on their own machines.
    assert "pending signature" in desk("shoal release push pump-1.shoal")
    said = desk("shoal release export --out pending.json")
    assert "release pump 1.0 (sequence 1)" in said
    desk("shoal release sign pending.json --key bob/targets-1.key --package pump-1.shoal --yes")
    said = desk(
        "shoal release sign pending.json --key ann/targets-1.key --package pump-2.shoal --yes",
        refused=True,
    )
    assert "does not add exactly this package" in said
    said = desk(
        "shoal release sign pending.json --key ann/targets-1.key --yes --passphrase-file other",
        refused=True,
    )
    assert "the passphrase does not open it" in said
    desk("shoal release sign pending.json --key ann/targets-1.key --yes")
    desk("shoal release import pending.json")
    assert json.loads(desk("shoal release show pump 1.0 --json"))["state"] == "released"
    both = "--targets-key bob/targets-1.key --targets-key ann/targets-1.key"
    assert "published pump 2.0" in desk(f"shoal release push pump-2.shoal {both}")

    # Ann leaves: from now on Bob signs alone, then with another key.
    sign = "--key bob/root-1.key --key bob/targets-1.key"
    desk(f"shoal keys revoke targets ann/targets-1.key.pub --threshold 1 {sign}")
    desk("shoal release push pump-3.shoal --targets-key ann/targets-1.key", refused=True)
    desk("shoal-controller new-key --config $CONFIG timestamp")
    desk("shoal keys rotate timestamp --key bob/root-1.key")
    new = "--new new/root-1.key --key bob/root-1.key --key new/root-1.key"
    desk(f"shoal keys init new && shoal keys rotate root {new}")
    desk("shoal trust renew --root --key new/root-1.key --key bob/targets-1.key")
    desk("shoal release push pump-3.shoal --targets-key bob/targets-1.key")
    desk("shoal-controller new-key --config $CONFIG director")
    said = desk("shoal keys rotate director --key bob/targets-1.key")
    assert "1 of 2 keys may say what devices run" in said
    assert "withdrew" in desk("shoal release withdraw pump 1.0 --targets-key bob/targets-1.key")
    status = _trust(desk)
    assert [one["version"] for one in status["roles"]][:2] == [5, 4]
    assert status["warnings"] == []
    models = json.loads(desk("shoal release list --json"))
    assert {one["version"]: one["state"] for one in models} == {
        "1.0": "withdrawn", "2.0": "released", "3.0": "released",
    }  # fmt: skip
    audit = desk("shoal audit list --json")
    assert "WITHDRAW pump 1.0" in audit
