"""A release of Shoal itself: the same bytes each time, and nothing changed on its way."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from release_lib.folder import PROVENANCE, SUMS, digest, make_release, seal_folder, verify_release
from release_lib.locks import INSTALLED, read_lock
from release_lib.parts import listed_pins
from release_lib.provenance import Origin, commit_of, inputs_of

from shoal.errors import InvalidInputError, ShoalError, UntrustedError
from shoal.signing import FileSigner, KeyVerifier
from tests.contract.supply.conftest import BUILDER, git

pytestmark = [pytest.mark.contract, pytest.mark.timeout(300)]

SCRIPT = str(Path(__file__).resolve().parents[3] / "scripts" / "release.py")


def _bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _verify(released, key=None, **options):
    verifier = KeyVerifier([(key or released.signer).public_key])
    return verify_release(released.folder, verifier, **options)


def _one(released, pattern):
    (found,) = released.folder.glob(pattern)
    return found


def _run(*words, code=0, **environment):
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True,
        timeout=120, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_same_commit_gives_the_same_bytes_anywhere_and_at_any_time(built, tmp_path):
    elsewhere = tmp_path / "a-clone"
    git(tmp_path, "clone", "-q", str(built.repository), str(elsewhere))
    key = tmp_path / "release.key"
    key.write_bytes(base64.b64encode(built.signer.private_bytes()))
    again = tmp_path / "again"
    before = os.umask(0o077)
    try:
        _run(
            "build", again, "--key", key, "--repository", elsewhere, "--builder", BUILDER,
            TZ="Asia/Tokyo", LC_ALL="C", SOURCE_DATE_EPOCH="1", HOME=str(tmp_path),
        )  # fmt: skip
    finally:
        os.umask(before)
    assert _bytes(again) == _bytes(built.folder)


def test_wheel_and_sdist_hold_what_is_committed_and_carry_the_time_of_the_commit(built):
    with zipfile.ZipFile(_one(built, "*.whl")) as wheel:
        names = wheel.namelist()
        assert "agent/app.py" in names
        assert not [name for name in names if name.startswith("tests/")]
    with tarfile.open(_one(built, "*.tar.gz")) as sdist:
        times = {int(one.mtime) for one in sdist.getmembers()}
    assert times == {int(git(built.repository, "show", "-s", "--format=%ct"))}


def test_a_list_of_parts_names_exactly_what_its_lock_pins(built):
    for extra in INSTALLED:
        pins = read_lock((built.repository / "locks" / f"{extra}.lock").read_text())
        data = (built.folder / f"{extra}.cdx.json").read_bytes()
        document = json.loads(data)
        assert Counter(pins) == Counter(listed_pins(extra, data))
        assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
        licensed = [one for one in document["components"] if one.get("licenses")]
        assert len(licensed) >= len(pins) * 0.8
    parts = json.loads((built.folder / "agent.cdx.json").read_bytes())["components"]
    (tuf,) = [one for one in parts if one["name"] == "tuf"]
    assert tuf["purl"] == f"pkg:pypi/tuf@{tuf['version']}"
    assert tuf["licenses"] == [{"expression": "Apache-2.0 OR MIT"}]


def test_the_provenance_names_commit_builder_locks_and_every_file(built):
    statement = _verify(built, commit=git(built.repository, "rev-parse", "HEAD"), builder=BUILDER)
    assert statement.kind == "https://in-toto.io/Statement/v1"
    assert statement.predicate_type == "https://slsa.dev/provenance/v1"
    assert {one.name for one in statement.subject} == set(_bytes(built.folder)) - {PROVENANCE}
    inputs = inputs_of(statement)
    assert inputs["source"] == {"gitCommit": commit_of(statement)}
    for name in ("build", *INSTALLED):
        path = f"locks/{name}.lock"
        assert inputs[path] == {"sha256": digest(built.repository / path)}


def test_what_is_not_committed_is_not_released(repository, tmp_path):
    dirty = tmp_path / "dirty"
    git(tmp_path, "clone", "-q", str(repository), str(dirty))
    (dirty / "agent" / "extra.py").write_text("")
    with pytest.raises(InvalidInputError, match=r"1 files differ from commit .*agent/extra\.py"):
        make_release(dirty, tmp_path / "out", FileSigner.generate(), BUILDER)
    assert not (tmp_path / "out").exists()


def _append(pattern):
    def change(released):
        path = _one(released, pattern)
        path.write_bytes(path.read_bytes() + b"\n")

    return change


def _remove(pattern):
    return lambda released: _one(released, pattern).unlink()


def _add(released):
    (released.folder / "shoal-9.9.9-py3-none-any.whl").write_bytes(b"PK")


def _link(released):
    wheel = _one(released, "*.whl")
    copy = wheel.rename(released.folder.parent / "elsewhere.whl")
    wheel.symlink_to(copy)


def _sign_by_another(released):
    origin = Origin(BUILDER, "0.1.0", "0" * 40, 1, {})
    seal_folder(released.folder, origin, FileSigner.generate())


def _move_signature(released):
    path = released.folder / PROVENANCE
    envelope = json.loads(path.read_bytes())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["subject"][1]["digest"]["sha256"] = "0" * 64
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    path.write_text(json.dumps(envelope))


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (_append("*.whl"), "changed-file", r"\.whl: expected sha256 \w{64}, got \w{64}"),
        (_append("*.tar.gz"), "changed-file", r"\.tar\.gz: expected sha256"),
        (_append("agent.cdx.json"), "changed-file", r"agent\.cdx\.json: expected sha256"),
        (_append("controller.lock"), "changed-file", r"controller\.lock: expected sha256"),
        (_append(SUMS), "changed-file", "SHA256SUMS: expected sha256"),
        (_remove("*.whl"), "missing-file", r"\.whl is signed, but missing"),
        (_remove("agent.cdx.json"), "missing-file", r"agent\.cdx\.json is signed, but missing"),
        (_remove(SUMS), "missing-file", "SHA256SUMS is signed, but missing"),
        (_remove(PROVENANCE), "missing-file", r"no provenance\.dsse\.json"),
        (_add, "extra-file", r"shoal-9\.9\.9\S* is there, but not signed"),
        (_link, "not-a-file", r"\.whl: expected a file"),
        (_sign_by_another, "unknown-key", "0 valid signatures, 1 needed"),
        (_move_signature, "bad-signature", "0 valid signatures, 1 needed"),
    ],
)
def test_a_folder_that_was_changed_is_refused(released, change, code, sentence):
    _verify(released)
    change(released)
    with pytest.raises(UntrustedError, match=sentence) as error:
        _verify(released)
    assert error.value.code == code


def test_another_key_another_commit_and_another_builder_are_refused(released, tmp_path):
    public = base64.b64encode(released.signer.public_key).decode()
    assert "11 files as signed" in _run("verify", released.folder, "--key", public)
    other = base64.b64encode(FileSigner.generate().public_key).decode()
    assert "[unknown-key]" in _run("verify", released.folder, "--key", other, code=1)
    for option, code in (("--commit=abcdef0", "wrong-commit"), ("--builder=me", "wrong-builder")):
        refused = _run("verify", released.folder, "--key", public, option, code=1)
        assert refused.startswith("release: provenance: expected")
        assert f"[{code}]" in refused
    assert "no such file" in _run("build", tmp_path / "x", "--key", tmp_path / "no.key", code=1)


def _drop_part(document):
    document["components"].pop()


def _add_part(document):
    extra = {"name": "left-pad", "version": "1.0", "type": "library", "bom-ref": "left-pad"}
    document["components"].append(extra | {"purl": "pkg:pypi/left-pad@1.0"})


def _other_hash(document):
    document["components"][0]["hashes"] = [{"alg": "SHA-256", "content": "0" * 64}]


def _other_purl(document):
    document["components"][0]["purl"] = "pkg:pypi/other@1.0"


def _no_standard(document):
    document["components"][0]["type"] = "nonsense"


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (_drop_part, "wrong-parts", "is pinned by the lock, but not listed"),
        (_add_part, "wrong-parts", "left-pad@1.0 is listed, but not in the lock"),
        (_other_hash, "wrong-parts", "other hashes or markers than the lock pins"),
        (_other_purl, "wrong-parts", "expected purl"),
        (_no_standard, "bad-parts", "no CycloneDX 1.6"),
    ],
)
def test_a_list_of_parts_that_differs_from_its_lock_is_refused_even_when_signed(
    released, change, code, sentence
):
    path = released.folder / "agent.cdx.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    _seal_again(released)
    with pytest.raises(ShoalError, match=sentence) as error:
        _verify(released)
    assert error.value.code == code


def test_a_lock_that_is_not_the_commits_is_refused_even_when_signed(released):
    path = released.folder / "agent.lock"
    path.write_text(path.read_text() + "# changed\n")
    _seal_again(released)
    with pytest.raises(UntrustedError, match=r"agent\.lock: expected the lock it was built with"):
        _verify(released)


def _seal_again(released):
    paths = ["pyproject.toml", *(f"locks/{one}.lock" for one in ("build", *INSTALLED))]
    inputs = {path: digest(released.repository / path) for path in paths}
    commit = git(released.repository, "rev-parse", "HEAD")
    seal_folder(released.folder, Origin(BUILDER, "0.1.0", commit, 1, inputs), released.signer)


def test_the_documented_check_without_shoal_accepts_and_refuses(released, repository_root):
    text = (repository_root / "docs" / "how-to" / "release.md").read_text()
    (recipe,) = re.findall(r"```sh\n(python3 - .*?)```", text, re.S)
    public = base64.b64encode(released.signer.public_key).decode()

    def run(key):
        return subprocess.run(
            ["bash", "-ec", recipe], cwd=released.folder, env=os.environ | {"KEY": key},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    accepted = run(public)
    assert accepted.returncode == 0, accepted.stderr
    assert "Signature Verified Successfully" in accepted.stdout
    assert run(base64.b64encode(FileSigner.generate().public_key).decode()).returncode != 0
    _append("*.whl")(released)
    assert run(public).returncode != 0
    _append(SUMS)(released)
    assert run(public).returncode != 0
