"""What authors do on their own machine: keys, training, packaging, looking into a package."""

from __future__ import annotations

import base64
import json
import random
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from shoal.cli.app import app
from shoal.cli.description import load_description
from shoal.cli.variants import TfliteModel, answers, find_runtime
from shoal.dense import encode_dense
from shoal.errors import InvalidInputError, UntrustedError
from shoal.modeling.onnx import write_onnx
from shoal.package import make_package, read_package, verify_package, write_package
from shoal.signing import FileSigner, KeyVerifier, key_id
from shoal.tflite.writer import Dense, write_float32

RELEASE = ("--name", "pump", "--model-version", "1.0.0", "--sequence", "1", "--epochs", "4")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def done(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.exception or result.output
    return result.stdout


def refused(*arguments: object, kind: type[Exception] = InvalidInputError) -> str:
    error = run(*arguments).exception
    assert isinstance(error, kind), repr(error)
    assert "\n" not in str(error)
    return str(error)


def write_csv(path: Path, rows: int = 300, separator: str = ",", missing: str = "NA") -> Path:
    """Time, flow and a temperature that follows it; two cells are missing."""
    noise = random.Random(1)
    lines = [separator.join(["datetime", "flow", "temp"])]
    for i in range(rows):
        flow = noise.gauss(20, 3)
        temp = missing if i in (5, 50) else f"{flow / 2 + noise.gauss(40, 2):.3f}"
        lines.append(separator.join([f"2026-01-01 {i // 60:02}:{i % 60:02}", f"{flow:.3f}", temp]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    done("keys", "create", tmp_path / "release.key")
    return tmp_path / "release.key"


@pytest.fixture
def trained(tmp_path: Path, key: Path) -> Path:
    out = tmp_path / "pump.shoal"
    data = write_csv(tmp_path / "pump.csv")
    done(*train_command(data, key, out))
    return out


def train_command(data: Path, key: Path, out: Path, *more: object) -> list[object]:
    files = [data, "--key", key, "--out", out, "--time-column", "datetime"]
    return ["train", "autoencoder", *RELEASE, *files, *more]


# Keys


def test_a_new_key_is_private_and_its_public_half_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "release.key"
    shown = done("keys", "create", file)
    public = (tmp_path / "release.key.pub").read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert base64.b64decode(public) == FileSigner.load(file).public_key
    assert public in shown
    assert done("keys", "show", file) == shown
    assert json.loads(done("keys", "show", file, "--json")) == {
        "public_key": public,
        "key_id": key_id(base64.b64decode(public)),
    }


@pytest.mark.parametrize("name", ["release.key", "release.key.pub"])
def test_a_key_never_replaces_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine\n")
    assert f"{name}: expected a new name" in refused("keys", "create", tmp_path / "release.key")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine\n"


def test_a_public_key_is_never_taken_for_a_private_one(tmp_path: Path, key: Path) -> None:
    public = tmp_path / "release.key.pub"
    assert "expected the private key" in refused("keys", "show", public)
    data = write_csv(tmp_path / "pump.csv")
    command = train_command(data, public, tmp_path / "pump.shoal")
    assert "expected the private key" in refused(*command)


def test_a_missing_or_broken_key_is_named(tmp_path: Path) -> None:
    assert "absent.key" in refused("keys", "show", tmp_path / "absent.key")
    (tmp_path / "broken.key").write_text("none")
    assert "broken.key" in refused("keys", "show", tmp_path / "broken.key")


# Training


def test_trains_a_package_that_verifies_and_runs(tmp_path: Path, trained: Path, key: Path) -> None:
    public = f"{key}.pub"
    shown = json.loads(done("inspect", trained, "--key-public", public, "--json"))
    assert shown["verified_by"] == shown["signed_by"][0] == key_id(FileSigner.load(key).public_key)
    assert shown["bytes"] == trained.stat().st_size
    assert [one["name"] for one in shown["manifest"]["contract"]["features"]] == ["flow", "temp"]

    package = read_package(trained)
    assert verify_package(package, KeyVerifier([FileSigner.load(key).public_key])).model == "pump"
    runtime = find_runtime()
    assert runtime is not None
    rows = np.array([[20, 50], [20, 90]], np.float32)
    for variant in package.manifest.variants:
        model = TfliteModel(runtime, package.files[variant.file], variant.name)
        assert answers(package.manifest.contract, model, rows)[1] == ["normal", "anomaly"]


def test_the_report_says_what_was_made(tmp_path: Path, key: Path) -> None:
    data, out = write_csv(tmp_path / "pump.csv", missing=""), tmp_path / "pump.shoal"
    report = json.loads(done(*train_command(data, key, out, "--json", "--unit", "flow=l/min")))
    package = read_package(out)
    assert (report["rows"], report["rows_used"]) == (300, 298)
    assert report["features"] == ["flow", "temp"]
    assert report["files"] == {name: len(data) for name, data in package.files.items()}
    assert report["manifest_sha256"] == package.manifest_sha256
    assert [f.unit for f in package.manifest.contract.features] == ["l/min", ""]
    assert package.manifest.lineage.dataset == "pump.csv"
    assert report["agreement"]["windows"] == 298
    assert 0 <= report["agreement"]["same_label"] <= 1


def test_people_read_lines_and_no_progress_outside_a_terminal(tmp_path: Path, key: Path) -> None:
    data = write_csv(tmp_path / "pump.csv")
    result = run(*train_command(data, key, tmp_path / "pump.shoal", "--features", "temp,flow"))
    assert "features    temp, flow\n" in result.stdout
    assert "rows        298 used of 300\n" in result.stdout
    assert "training" not in result.stdout + result.stderr


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_finds_the_separator_by_itself(tmp_path: Path, key: Path, separator: str) -> None:
    data = write_csv(tmp_path / "pump.csv", separator=separator)
    report = json.loads(done(*train_command(data, key, tmp_path / "a.shoal", "--json")))
    assert report["features"] == ["flow", "temp"]


def test_windows_of_rows_become_the_input(tmp_path: Path, key: Path) -> None:
    data, out = write_csv(tmp_path / "pump.csv"), tmp_path / "pump.shoal"
    done(*train_command(data, key, out, "--window-rows", 5, "--hidden", "6,2,6"))
    package = read_package(out)
    samples = json.loads(package.files["golden.json"])
    assert package.manifest.contract.window_rows == 5
    assert {len(one) for one in samples["inputs"]} == {10}


def test_says_when_the_model_has_nothing_to_learn(tmp_path: Path, key: Path) -> None:
    data, out = tmp_path / "pump.csv", tmp_path / "pump.shoal"
    data.write_text("flow,speed,state\n" + "".join(f"{i % 7},{i % 5},1\n" for i in range(200)))
    files = ("--key", key, "--out", out, "--json")
    report = json.loads(done("train", "autoencoder", data, *RELEASE, *files))
    assert report["notes"] == ["state never changes in this data"]
    report = json.loads(done("train", "autoencoder", data, *RELEASE, *files, "--hidden", "9,3,9"))
    assert "no layer is narrower than the 3 values of a window" in report["notes"][1]


def test_same_data_and_seed_give_the_same_model(tmp_path: Path, key: Path, trained: Path) -> None:
    done(*train_command(tmp_path / "pump.csv", key, tmp_path / "again.shoal"))
    assert read_package(tmp_path / "again.shoal").files == read_package(trained).files


def test_a_variant_that_devices_would_refuse_is_left_out(tmp_path: Path, key: Path) -> None:
    lines = [f"{i % 97},{2 * (i % 97)},{3 * (i % 97)}" for i in range(500)]  # scores all but zero
    data, out = tmp_path / "line.csv", tmp_path / "line.shoal"
    data.write_text("\n".join(["a,b,c", *lines]))
    files = ("--key", key, "--out", out, "--epochs", 60, "--json")
    report = json.loads(done("train", "autoencoder", data, *RELEASE, *files))
    assert "golden sample" in report["left_out"]["int8"]
    package = read_package(out)
    assert [one.name for one in package.manifest.variants] == ["float32"]
    assert "model.int8.tflite" not in package.files


BAD_DATA = {
    "": "expected a header line with column names, got none",
    "time,flow\n1,2\n1,on\n": "column 'flow', line 3: expected a number of at most 1e+15, got 'on'",
    'time,flow\n1,2\n"1\n2",on\n': "column 'time', line 3: expected a number",
    "time,flow\n1,1e30\n": "got '1e30'",
    "time,flow\n1,2\n1\n": "line 3: expected 2 cells as in the header, got 1",
    "time,flow,flow\n1,2,3\n": "column 'flow' is named twice",
    ",flow\n1,2\n": "column 1 is called ''",
    "time,flow\n1,2\n": "expected at least 10 rows without a missing value",
    "time,flow\n" + "1,\n" * 20: "column 'flow': expected numbers, every cell is missing",
    "time,flow\n" + "1,2\n" * 20: "every feature is constant",
    'time,flow\n1,"2\n': "expected CSV with a header line",
}


@pytest.mark.parametrize("content", BAD_DATA)
def test_bad_data_is_one_sentence_that_names_the_place(
    tmp_path: Path, key: Path, content: str
) -> None:
    data, out = tmp_path / "bad.csv", tmp_path / "bad.shoal"
    data.write_text(content)
    sentence = refused("train", "autoencoder", data, *RELEASE, "--key", key, "--out", out)
    assert "bad.csv" in sentence
    assert BAD_DATA[content] in sentence
    assert not out.exists()


def test_a_missing_file_and_a_file_that_is_no_text_are_named(tmp_path: Path, key: Path) -> None:
    out = tmp_path / "pump.shoal"
    absent, binary = tmp_path / "absent.csv", tmp_path / "binary.csv"
    binary.write_bytes(b"flow\n1\n\xff\xfe\n")
    assert "absent.csv: No such file" in refused(*train_command(absent, key, out))
    command = ("train", "autoencoder", binary, *RELEASE, "--key", key, "--out", out)
    assert "binary.csv: expected UTF-8" in refused(*command)


BAD_OPTIONS = {
    ("--features", "flow,speed"): "no column 'speed', got 'datetime', 'flow', 'temp'",
    ("--features", "flow,flow"): "column 'flow' is named twice",
    ("--features", "flow,datetime"): "beside time column 'datetime'",
    ("--time-column", "when"): "no column 'when'",
    ("--unit", "speed=m/s"): "--unit speed: expected a feature, one of flow, temp",
    ("--unit", "flow"): "expected name=unit",
    ("--separator", "::"): "expected one character",
    ("--separator", ";"): "no column 'datetime', got 'datetime,flow,temp'",
    ("--hidden", "8,x"): "--hidden '8,x'",
    ("--threshold", "0"): "--threshold: expected a number above 0",
    ("--name", "Pump 1"): "model name 'Pump 1'",
    ("--model-version", "1 0"): "version '1 0'",
    ("--features", "flow"): "expected at least two values a window",
    ("--window-rows", "40"): "expected at least 400 rows without a missing value",
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options_are_named(tmp_path: Path, key: Path, options: tuple[str, str]) -> None:
    data = write_csv(tmp_path / "pump.csv")
    sentence = refused(*train_command(data, key, tmp_path / "pump.shoal", *options))
    assert BAD_OPTIONS[options] in sentence


def test_a_package_is_never_written_over_something_else(tmp_path: Path, key: Path) -> None:
    data = write_csv(tmp_path / "pump.csv")
    before = key.read_bytes()
    assert "*.shoal" in refused(*train_command(data, key, key))
    assert key.read_bytes() == before
    absent = tmp_path / "absent" / "pump.shoal"
    assert "to exist" in refused(*train_command(data, key, absent))


# Looking into a package


def test_inspect_shows_contents_and_says_that_nothing_is_verified(trained: Path) -> None:
    text = done("inspect", trained)
    manifest = read_package(trained).manifest
    assert "NOT verified" in text
    assert "release     pump 1.0.0, sequence 1" in text
    for entry in manifest.files:
        assert f"{entry.name}, {entry.length:,} bytes, sha256 {entry.sha256}" in text
    assert json.loads(done("inspect", trained, "--json"))["verified_by"] is None


def test_inspect_refuses_a_signature_by_another_key(tmp_path: Path, trained: Path) -> None:
    done("keys", "create", tmp_path / "other.key")
    other = (tmp_path / "other.key.pub").read_text().strip()
    sentence = refused("inspect", trained, "--key-public", other, kind=UntrustedError)
    assert "pump.shoal: expected a signature by key" in sentence
    assert "public key 'abc'" in refused("inspect", trained, "--key-public", "abc")


@pytest.mark.parametrize("kept", [0, 100, 0.5, -1])
def test_inspect_refuses_a_truncated_package(trained: Path, kept: float) -> None:
    data = trained.read_bytes()
    trained.write_bytes(data[: int(len(data) * kept) if kept == 0.5 else int(kept)])
    assert "pump.shoal: not a package" in refused("inspect", trained)


def test_inspect_lets_no_control_character_reach_the_screen(tmp_path: Path, trained: Path) -> None:
    package = read_package(trained)
    card = msgspec.structs.replace(package.manifest.card, summary="\x1b[2Jgone")
    manifest = msgspec.structs.replace(package.manifest, card=card)
    write_package(make_package(manifest, package.files), tmp_path / "evil.shoal")
    text = done("inspect", tmp_path / "evil.shoal")
    assert "\x1b" not in text
    assert "[2Jgone" in text
    assert "signed by   nobody" in text


# Packaging somebody's own model

DESCRIPTION = """
model = "sums"
version = "2"
sequence = 2
baseline_csv = "pump.csv"

[[variants]]
file = "sums.tflite"
requires = { memory_mb = 64 }

[contract]
features = [{ name = "flow", unit = "l/min", low = 0 }, { name = "temp" }]
outputs = [{ name = "sum" }, { name = "difference" }]
postprocess = [
    { op = "raw_outputs", fields = ["sum", "difference"] },
    { op = "threshold", field = "sum", above = 80 },
]

[card]
summary = "Adds up."
metrics = { f1 = 1 }

[probation]
seconds = 30
"""
SECOND_VARIANT = """
[[variants]]
file = "shifted.tflite"
precision = "int8"
"""


@pytest.fixture
def package_it(tmp_path: Path, key: Path) -> Callable[[str], list[object]]:
    """The command for a description, beside models that give flow + temp and flow - temp."""
    write_csv(tmp_path / "pump.csv")
    dense = Dense(np.array([[1, 1], [1, -1]], np.float32), np.zeros(2, np.float32))
    (tmp_path / "sums.tflite").write_bytes(write_float32([dense]))
    shifted = replace(dense, bias=np.ones(2, np.float32))
    (tmp_path / "shifted.tflite").write_bytes(write_float32([shifted]))

    def command(text: str) -> list[object]:
        (tmp_path / "sums.toml").write_text(text)
        out = tmp_path / "sums.shoal"
        return ["package", tmp_path / "sums.toml", "--key", key, "--out", out]

    return command


def test_packages_a_model_with_what_its_rows_show(
    tmp_path: Path, package_it: Callable[[str], list[object]]
) -> None:
    shown = json.loads(done(*package_it(DESCRIPTION), "--json"))
    package = read_package(tmp_path / "sums.shoal")
    manifest = package.manifest
    assert shown["run_here"] == ["sums"]
    assert (manifest.model, manifest.sequence, manifest.probation.seconds) == ("sums", 2, 30)
    assert manifest.variants[0].requires.memory_mb == 64
    assert manifest.card.metrics == {"f1": 1.0}
    assert manifest.lineage.rows == 300
    samples = json.loads(package.files["golden.json"])
    for (flow, temp), output in zip(samples["inputs"], samples["outputs"], strict=True):
        assert output == pytest.approx([flow + temp, flow - temp], rel=1e-5)
    baseline = json.loads(package.files["baseline.json"])
    assert [one["missing"] for one in baseline["features"]] == [0, 2]


def test_labelled_rows_become_the_calibration_of_the_score(
    tmp_path: Path, package_it: Callable[[str], list[object]]
) -> None:
    rows = [(80.5, 1, "anomaly"), (10, 1, "normal"), (20, 2, "anomaly"), ("", 2, "normal")]
    lines = [f"{flow};{temp}; {label}" for flow, temp, label in rows]
    (tmp_path / "held-out.csv").write_text("\n".join(["flow;temp;state", *lines, ""]))
    text = DESCRIPTION.replace("[[v", 'labelled_csv = "held-out.csv"\n\n[[v')
    named = text.replace("labelled_csv", 'label_column = "state"\nlabelled_csv')
    done(*package_it(named))
    baseline = json.loads(read_package(tmp_path / "sums.shoal").files["baseline.json"])
    known = baseline["calibration"]
    assert (known["output"], sum(known["counts"]), sum(known["correct"])) == ("sum", 3, 2)
    assert "held-out.csv: no label column 'label'" in refused(*package_it(text))
    assert "gone.csv: No such" in refused(*package_it(named.replace("held-out", "gone")))
    alone = named.replace('baseline_csv = "pump.csv"', "")
    assert "labelled_csv: expected baseline_csv too" in refused(*package_it(alone))


def test_packages_without_rows_and_says_so(
    tmp_path: Path, package_it: Callable[[str], list[object]]
) -> None:
    text = done(*package_it(DESCRIPTION.replace('baseline_csv = "pump.csv"', "")))
    package = read_package(tmp_path / "sums.shoal")
    assert (package.manifest.golden, package.manifest.baseline) == (None, None)
    assert list(package.files) == ["sums.tflite"]
    assert "golden      none" in text


def test_a_variant_that_answers_otherwise_is_refused_unless_allowed(
    tmp_path: Path, package_it: Callable[[str], list[object]]
) -> None:
    strict = "golden_relative = 0.0\n" + DESCRIPTION + SECOND_VARIANT
    assert "variant shifted: golden sample" in refused(*package_it(strict))
    assert not (tmp_path / "sums.shoal").exists()
    done(*package_it("golden_absolute = 1.5\n" + strict))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version =", "versionn = 1\nversion =", "versionn is not known"),
        ("[contract]", "[contract]\nwindow_row = 3", "contract.window_row is not known"),
        ("unit =", "unti =", "contract.features[0].unti is not known"),
        ("sequence = 2", 'sequence = "2"', "Expected `int`, got `str` - at `$.sequence`"),
        ("raw_outputs", "magic", "Invalid value 'magic' - at `$.contract.postprocess[0].op`"),
        ('field = "sum"', 'field = "score"', "contract.postprocess[1].field: no output 'score'"),
        ('{ name = "temp" }', '{ name = "flow" }', "features: 'flow' is named 2 times"),
        ('{ name = "temp" }', '{ name = "speed" }', "no column 'speed', got 'datetime', 'flow'"),
        ('fields = ["sum", "difference"]', 'fields = ["sum"]', "no step gives output 'difference'"),
        ('difference"] }', 'difference", "third"] }', "the model's 2 output values"),
        ("[contract]", "[contract]\nwindow_rows = 3", "expected 6 input values"),
        ("sums.tflite", "absent.tflite", "variant absent: file absent.tflite: No such file"),
        ("sums.tflite", "pump.csv", "expected a TFLite model"),
        ("sums.tflite", "cut.tflite", "variant cut: file cut.tflite: "),
        ('"pump.csv"', '"absent.csv"', "absent.csv: No such file"),
        ('"sums"', '"Sums 1"', "matching regex"),
        ("model =", "model", "Expected '=' after a key"),
    ],
)
def test_a_mistake_in_a_description_is_named(
    tmp_path: Path,
    package_it: Callable[[str], list[object]],
    old: str,
    new: str,
    words: str,
) -> None:
    assert old in DESCRIPTION
    (tmp_path / "cut.tflite").write_bytes((tmp_path / "sums.tflite").read_bytes()[:200])
    assert words in refused(*package_it(DESCRIPTION.replace(old, new)))
    assert not (tmp_path / "sums.shoal").exists()


def test_variants_of_other_runtimes_are_packaged_and_tried_out(
    tmp_path: Path, package_it: Callable[[str], list[object]]
) -> None:
    weights, bias = np.array([[1, 1], [1, -1]], np.float32), np.zeros(2, np.float32)
    (tmp_path / "sums.json").write_bytes(encode_dense([(weights, bias, "linear")]))
    (tmp_path / "sums.onnx").write_bytes(write_onnx([Dense(weights, bias)]))
    more = '\n[[variants]]\nfile = "sums.json"\nname = "plain"\n'
    more += '\n[[variants]]\nfile = "sums.onnx"\nname = "onnx"\n'
    done(*package_it(DESCRIPTION + more))
    variants = {one.name: one for one in read_package(tmp_path / "sums.shoal").manifest.variants}
    assert (variants["plain"].runtime, variants["onnx"].runtime) == ("numpy", "onnx")
    assert variants["sums"].requires.operators == {"FULLY_CONNECTED": 1}
    (tmp_path / "sums.json").write_bytes(encode_dense([(weights, bias + 3, "linear")]))
    assert "variant plain: golden sample" in refused(*package_it(DESCRIPTION + more))
    (tmp_path / "sums.json").write_bytes(b"{}")
    assert "variant plain: dense network" in refused(*package_it(DESCRIPTION + more))


def test_a_missing_description_is_named(tmp_path: Path, key: Path) -> None:
    command = ("package", tmp_path / "absent.toml", "--key", key, "--out", tmp_path / "a.shoal")
    assert "absent.toml: No such file" in refused(*command)


# The tutorial


def test_the_tutorial_does_what_it_says(
    tmp_path: Path, repository_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "passphrase").write_text("of this test alone")
    monkeypatch.setenv("SHOAL_KEY_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    page = (repository_root / "docs" / "tutorials" / "your-own-csv.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.S | re.M)
    exec(next(text for kind, text in blocks if kind == "python"), {})
    lines = "".join(text for kind, text in blocks if kind == "sh").replace("\\\n", " ").splitlines()
    for words in map(shlex.split, lines):
        if words[:2] in (["shoal", "keys"], ["shoal", "train"], ["shoal", "inspect"]):
            done(*words[1:])
    first, second = (read_package(tmp_path / f"pump-{i}.shoal").manifest for i in (1, 2))
    assert (first.version, second.version) == ("1.0.0", "1.1.0")
    assert first.sequence < second.sequence
    own = next(text for kind, text in blocks if kind == "toml" and text.startswith("model"))
    (tmp_path / "pump.toml").write_text(own)
    assert [one.file for one in load_description(tmp_path / "pump.toml").variants] == [
        "pump.tflite",
        "pump-int8.tflite",
    ]
