"""`shoal-agent explain` and `shoal package`: what files need is found in the files."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from agent.explain import explain_lines, explain_package
from shoal.cli.app import app
from shoal.modeling.autoencoder import train_autoencoder
from shoal.modeling.build import autoencoder_draft, build_package
from shoal.package import file_entries, make_package, write_package
from shoal.profiles import load_profile, profile_facts
from shoal.protocol.manifest import Feature, Requires
from shoal.signing import FileSigner

SIGNER = FileSigner.generate()


@pytest.fixture(scope="module")
def package():
    """An autoencoder in every kind of file."""
    draw = np.random.default_rng(2)
    rows = (draw.normal(0, 1, (200, 2)) @ draw.normal(0, 1, (2, 4)) + 20).astype(np.float32)
    model = train_autoencoder(rows, (6, 2, 6), epochs=5)
    features = [Feature(name=f"x{i}") for i in range(4)]
    draft = autoencoder_draft(
        model, rows, features, name="pump", version="1.0.0", sequence=1,
        kinds=("tflite", "onnx", "numpy"),
    )  # fmt: skip
    return build_package(draft, SIGNER)


@pytest.fixture
def write(tmp_path):
    """Writes a package with changed variants."""

    def write_changed(package, change=lambda variant: variant, files=None):
        files = files or package.files
        manifest = msgspec.structs.replace(
            package.manifest,
            variants=[change(one) for one in package.manifest.variants],
            files=file_entries(files),
        )
        path = tmp_path / "pump.shoal"
        write_package(make_package(manifest, files, SIGNER), path)
        return path

    return write_changed


def _facts(profile="raspberry-pi-4"):
    return profile_facts(load_profile(profile))


def test_variants_require_what_their_files_need(package):
    by_name = {one.name: one for one in package.manifest.variants}
    assert [one.runtime for one in package.manifest.variants] == [
        "tflite", "tflite", "onnx", "numpy",
    ]  # fmt: skip
    assert by_name["int8"].requires.operators == {"FULLY_CONNECTED": 5}
    assert by_name["float32"].requires.operators == {"FULLY_CONNECTED": 1}
    assert by_name["float32"].requires.memory_mb == 2
    assert by_name["int8"].requires.runtime_version == "1.14.0"
    assert by_name["numpy"].requires == Requires()


def test_the_chosen_variant_is_said_and_why_not_the_others(package, write):
    def change(variant):
        if variant.name == "int8":
            return msgspec.structs.replace(variant, requires=Requires(cpu_features=["asimddp"]))
        return variant

    found = explain_package(write(package, change), _facts())
    assert (found["fits"], found["variant"]) == (True, "float32")
    assert [one["variant"] for one in found["variants"]] == ["int8", "float32", "onnx", "numpy"]
    assert found["variants"][0]["gaps"] == [
        {
            "field": "cpu_features",
            "need": "asimddp",
            "have": "asimd",
            "fix": "use a plainer variant",
        }
    ]
    text = explain_lines(found, "profile raspberry-pi-4")
    assert "pump 1.0.0 fits profile raspberry-pi-4 with variant float32" in text
    assert "int8 (tflite int8, priority 4): does not fit" in text
    assert "runtime: needs onnx, has tflite, numpy (install a runtime for onnx" in text
    assert "numpy (numpy float32, priority 1): fits too" in text
    assert explain_package(write(package, change), _facts("raspberry-pi-5"))["variant"] == "int8"


def test_a_file_is_believed_before_its_manifest(package, write):
    """The manifest asks for nothing; the file needs operators that the device has not."""
    bare = write(package, lambda one: msgspec.structs.replace(one, requires=Requires()))
    facts = _facts() | {"memory_mb": 1}
    found = explain_package(bare, facts)
    assert found["variant"] == "numpy"
    assert [gap["field"] for gap in found["variants"][0]["gaps"]] == ["memory_mb"]


def test_an_unsound_file_is_a_gap_like_any_other(package, write):
    files = {**package.files, "model.int8.tflite": package.files["model.int8.tflite"][:400]}
    found = explain_package(write(package, files=files), _facts())
    assert found["variant"] == "float32"
    assert found["variants"][0]["gaps"][0]["field"] == "file"


def test_the_command_answers_for_a_profile_without_any_configuration(package, write):
    path = write(package)
    command = [sys.executable, "-m", "agent.cli", "explain", str(path), "--profile"]
    good = subprocess.run(
        [*command, "raspberry-pi-5", "--json"], capture_output=True, timeout=60, check=True
    )
    assert json.loads(good.stdout)["variant"] == "int8"
    bad = subprocess.run([*command, "no-such-board"], capture_output=True, timeout=60, check=False)
    assert bad.returncode == 1
    assert b"expected one of armv7-gateway" in bad.stderr


def test_the_command_ends_with_2_where_nothing_fits(package, write):
    path = write(
        package, lambda one: msgspec.structs.replace(one, requires=Requires(arch=["riscv64"]))
    )
    command = [sys.executable, "-m", "agent.cli", "explain", str(path)]
    found = subprocess.run(
        [*command, "--profile", "x86-64-gateway"], capture_output=True, timeout=60, check=False
    )
    assert found.returncode == 2
    assert b"arch: needs riscv64, has x86_64 (build a variant" in found.stdout


def test_inspect_shows_what_a_model_file_needs(tmp_path, package):
    path = tmp_path / "model.tflite"
    path.write_bytes(package.files["model.int8.tflite"])
    text = CliRunner().invoke(app, ["inspect", str(path)]).stdout
    assert "operators   FULLY_CONNECTED 5" in text
    assert "usable      yes" in text
    found = json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json"]).stdout)
    assert found["operators"] == {"FULLY_CONNECTED": 5}
    assert any(one.startswith("ai-edge-litert") for one in found["runs_on"])
    path.write_bytes(b"no model")
    assert CliRunner().invoke(app, ["inspect", str(path)]).exit_code != 0


def test_inspect_shows_what_the_files_of_a_package_need(package, write):
    text = CliRunner().invoke(app, ["inspect", str(write(package))]).stdout
    assert "needs       model.int8.tflite: 2 MiB of memory, operators FULLY_CONNECTED 5" in text


def test_profiles_are_listed_with_the_source_of_every_fact():
    names = CliRunner().invoke(app, ["profiles", "list"]).stdout
    assert "coral-dev-board" in names
    text = CliRunner().invoke(app, ["profiles", "show", "coral-dev-board"]).stdout
    assert "delegates     edgetpu  (Edge TPU coprocessor" in text
    found = json.loads(CliRunner().invoke(app, ["profiles", "show", "imx8m-plus", "--json"]).stdout)
    assert found["facts"]["delegates"] == "vx"
