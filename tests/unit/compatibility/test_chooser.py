"""Asking once for facts that differ in nothing that counts gives what asking each time gives."""

from __future__ import annotations

from random import Random

from shoal.compatibility import Chooser, choose_variant
from shoal.protocol.manifest import Contract, Feature, Manifest, OutputField, Requires, Variant

MANIFEST = Manifest(
    model="m",
    version="1",
    sequence=1,
    created="2026-01-01T00:00:00+00:00",
    files=[],
    variants=[
        Variant(name="a", file="f", priority=2, requires=Requires(arch=["aarch64"], disk_mb=100)),
        Variant(name="b", file="f", requires=Requires(memory_mb=256, cpu_features=["avx2"])),
        Variant(name="c", file="f", runtime="onnx", requires=Requires(libc="glibc 2.30")),
    ],
    contract=Contract(features=[Feature(name="t")], outputs=[OutputField(name="y")]),
)


def test_a_chooser_says_what_the_comparison_says():
    random, chooser = Random(1), Chooser(MANIFEST)
    for _ in range(2000):
        facts = {
            "arch": random.choice(["aarch64", "x86_64"]),
            "disk_mb": random.choice([10, 99, 100, 101, 5000]),
            "memory_mb": random.choice([255, 256, 1024, "much"]),
            "cpu_features": random.choice(["", "avx2", "asimd"]),
            "cpu_cores": random.randrange(8),
            "runtimes": random.choice(["tflite", "tflite,onnx", "onnx"]),
            "runtime_onnx": random.choice(["", "onnxruntime 1.20"]),
            "runtime_tflite": random.choice(["tflite-runtime 2.14.0", "ai-edge-litert 2.1.0"]),
            "libc": random.choice(["glibc 2.28", "glibc 2.36"]),
        }
        for name in random.sample(sorted(facts), random.randrange(3)):
            del facts[name]
        if random.random() < 0.1:
            facts["memory_free_mb"] = random.choice([0, 10_000])
        assert chooser.choose(facts) == choose_variant(MANIFEST, facts), facts
