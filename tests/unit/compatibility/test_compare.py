"""What a variant requires against what a device has: one comparison, and sentences with the fix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.compatibility import choose_variant, compare, explain_variants
from shoal.package import file_entries
from shoal.profiles import load_profile, profile_facts, profile_names
from shoal.protocol.manifest import (
    Contract,
    Feature,
    Manifest,
    OutputField,
    Requires,
    Sensor,
    Variant,
)
from shoal.versions import version_key

FACTS = {
    "arch": "aarch64",
    "memory_mb": 512,
    "disk_mb": 8000,
    "cpu_cores": 4,
    "cpu_features": "asimd",
    "libc": "glibc 2.31",
    "python": "3.11.2",
    "delegates": "",
    "sensors": "temperature|°C|1,vibration|m/s²|1000",
    "runtimes": "tflite,numpy",
    "runtime_tflite": "tflite-runtime 2.14.0",
    "runtime_numpy": "numpy 1.26.4",
    "runtime": "tflite-runtime",
    "runtime_version": "2.14.0",
}


def _sensor(name, unit="", rate=0.0):
    return Requires(sensors=[Sensor(name=name, unit=unit, rate_hz=rate)])


@pytest.mark.parametrize(
    "requires",
    [
        Requires(),
        Requires(arch=["x86_64", "aarch64"], memory_mb=512, disk_mb=8000, cpu_cores=4),
        Requires(cpu_features=["asimd"], libc="glibc 2.17", python="3.11"),
        Requires(libc="2.31"),
        Requires(runtime_version="2.14", operators={"CONV_2D": 7, "ADD": 5}),
        Requires(runtime_version="ai-edge-litert 2.1"),
        _sensor("temperature", "°C", 1),
        _sensor("vibration", "m/s²", 999.5),
    ],
)
def test_what_the_device_has_leaves_no_gap(requires):
    assert compare(requires, FACTS) == []


@pytest.mark.parametrize(
    ("requires", "words"),
    [
        (Requires(arch=["x86_64"]), "arch: needs x86_64, has aarch64 (build a variant"),
        (Requires(memory_mb=513), "memory_mb: needs 513, has 512 (use a smaller variant"),
        (Requires(disk_mb=8001), "disk_mb: needs 8001, has 8000 (free room"),
        (Requires(cpu_cores=6), "cpu_cores: needs 6, has 4 ("),
        (Requires(cpu_features=["asimddp"]), "cpu_features: needs asimddp, has asimd ("),
        (Requires(delegates=["edgetpu"]), "delegates: needs edgetpu, has nothing ("),
        (Requires(libc="glibc 2.35"), "libc: needs glibc 2.35, has glibc 2.31 (upgrade"),
        (Requires(libc="musl 1.2"), "libc: needs musl 1.2, has glibc 2.31"),
        (Requires(python="3.12"), "python: needs 3.12, has 3.11.2 ("),
        (Requires(runtime_version="2.15"), "runtime_version: needs 2.15, has tflite-runtime 2.14"),
        (Requires(runtime_version="tflite-runtime 2.15"), "needs tflite-runtime 2.15, has"),
        (Requires(operators={"CONV_2D": 8}), "operators: needs CONV_2D 8, has CONV_2D 7 (convert"),
        (Requires(operators={"STABLEHLO_ADD": 1}), "operators: needs STABLEHLO_ADD 1, has nothing"),
        (Requires(operators={"CUSTOM:Mine": 1}), "operators: needs CUSTOM:Mine, has nothing ("),
        (_sensor("pressure", "bar", 1), "sensors: needs pressure bar at 1 Hz, has temperature, "),
        (_sensor("temperature", "K", 1), "needs temperature K at 1 Hz, has temperature °C at 1 Hz"),
        (_sensor("temperature", "°C", 2), "has temperature °C at 1 Hz (wire the sensor"),
    ],
)  # fmt: skip
def test_each_gap_says_what_is_needed_found_and_to_be_done(requires, words):
    (gap,) = compare(requires, FACTS)
    assert words in str(gap)
    assert gap.fix


def test_memory_free_at_the_moment_counts_where_the_device_says_it():
    assert compare(Requires(memory_mb=200), FACTS | {"memory_free_mb": 300}) == []
    (gap,) = compare(Requires(memory_mb=400), FACTS | {"memory_free_mb": 300})
    assert (gap.field, gap.need, gap.have) == ("memory_free_mb", "400", "300")


def test_litert_counts_as_later_than_tensorflow_lite_though_its_numbers_began_anew():
    litert = FACTS | {"runtime_tflite": "ai-edge-litert 2.3.0"}
    assert compare(Requires(runtime_version="2.17.0"), litert) == []
    assert compare(Requires(runtime_version="ai-edge-litert 2.1"), litert) == []
    (gap,) = compare(Requires(runtime_version="ai-edge-litert 2.4"), litert)
    assert gap.have == "ai-edge-litert 2.3.0"


def test_operators_of_a_runtime_nobody_probed_are_left_to_loading():
    facts = FACTS | {"runtime_tflite": "armnn 24.2"}
    assert compare(Requires(operators={"STABLEHLO_ADD": 1}), facts) == []


def _manifest(*variants):
    files = {f"{one.name}.bin": b"x" for one in variants}
    return Manifest(
        model="m", version="1", sequence=1, created="2026-01-01T00:00:00+00:00",
        files=file_entries(files), variants=list(variants),
        contract=Contract(features=[Feature(name="t")], outputs=[OutputField(name="y")]),
    )  # fmt: skip


def _variant(name, priority, runtime="tflite", **requires):
    return Variant(
        name=name, file=f"{name}.bin", priority=priority, runtime=runtime,
        requires=Requires(**requires),
    )  # fmt: skip


def test_the_fitting_variant_of_highest_priority_is_chosen_and_the_others_explained():
    manifest = _manifest(
        _variant("plain", 1),
        _variant("dot", 3, cpu_features=["asimddp"]),
        _variant("big", 4, memory_mb=4096, delegates=["edgetpu"]),
        _variant("small", 2, memory_mb=64),
        _variant("onnx", 5, runtime="onnx"),
    )
    chosen, gaps = choose_variant(manifest, FACTS)
    assert chosen is not None
    assert (chosen.name, gaps) == ("small", [])
    explained = [
        (fit.variant.name, [gap.field for gap in fit.gaps])
        for fit in explain_variants(manifest, FACTS)
    ]
    assert explained == [
        ("onnx", ["runtime"]),
        ("big", ["memory_mb", "delegates"]),
        ("dot", ["cpu_features"]),
        ("small", []),
        ("plain", []),
    ]


def test_where_nothing_fits_the_gaps_of_the_closest_are_told():
    manifest = _manifest(
        _variant("far", 9, arch=["x86_64"], memory_mb=9999), _variant("near", 1, memory_mb=600)
    )
    chosen, gaps = choose_variant(manifest, FACTS)
    assert chosen is None
    assert [(gap.field, gap.need) for gap in gaps] == [("memory_mb", "600")]


@given(
    st.dictionaries(
        st.sampled_from([*FACTS, "memory_free_mb", "runtime_onnx"]),
        st.none() | st.text(max_size=30) | st.integers() | st.floats() | st.booleans(),
    )
)
def test_facts_of_any_kind_are_answered(facts):
    everything = Requires(
        arch=["aarch64"], memory_mb=1, disk_mb=1, cpu_cores=1, cpu_features=["asimd"],
        delegates=["vx"], libc="glibc 2.1", python="3.11", runtime_version="2.1",
        operators={"ADD": 1}, sensors=[Sensor(name="t", unit="K", rate_hz=1)],
    )  # fmt: skip
    for gap in compare(everything, facts):
        assert str(gap)


@pytest.mark.parametrize("name", profile_names())
def test_a_device_of_a_profile_runs_what_was_made_for_the_profile(name):
    profile = load_profile(name)
    needs = Requires(
        arch=profile.arch, memory_mb=profile.memory_mb, disk_mb=profile.disk_mb,
        cpu_cores=profile.cpu_cores, cpu_features=profile.cpu_features, libc=profile.libc,
        python=profile.python, delegates=profile.delegates, operators={"CONV_2D": 5, "ADD": 2},
        runtime_version="2.5.0", sensors=profile.sensors,
    )  # fmt: skip
    assert compare(needs, profile_facts(profile)) == []


@given(st.lists(st.integers(0, 999), min_size=1, max_size=4))
def test_versions_compare_by_their_numbers(numbers):
    text = ".".join(map(str, numbers))
    assert version_key(text) == version_key(f"{text}.0")
    assert version_key(f"{text}.1") > version_key(text) or len(numbers) == 4
    assert version_key(f"glibc {text}") == version_key(text)
