"""The MLPerf Tiny reference models as packages, on a device, answered row by row."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from local_fleet import mlperf

from agent.runtimes.tflite import ADAPTERS

ROWS = 128  # a device commits nothing on fewer than 50, a gate judges nothing on fewer than 100
RESNET = (mlperf.classifier_contract, mlperf.PIXELS)
AD01 = (mlperf.autoencoder_contract, mlperf.SPECTRUM)
MODELS = {
    "resnet8-int8": ("pretrainedResnet_quant.tflite", *RESNET),
    "resnet8-float32": ("pretrainedResnet.tflite", *RESNET),
    "ad01-int8": ("ad01_int8.tflite", *AD01),
    "ad01-float32": ("ad01_fp32.tflite", *AD01),
}


def _inputs(width: int) -> np.ndarray:
    random = np.random.default_rng(5)
    if width == mlperf.PIXELS:  # coarse blots, so that the classes differ
        blots = random.integers(0, 256, (ROWS, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
        return blots.reshape(ROWS, width).astype("<f4")
    return random.normal(-5, 3, (ROWS, width)).astype("<f4")


def _expected_labels(path, inputs) -> dict[str, int]:
    """What the runtime says when it is asked without Shoal; the autoencoders give no label."""
    if inputs.shape[1] != mlperf.PIXELS:
        return {}
    adapter = next(one for one in ADAPTERS if one.available())
    scores = adapter.load(path, 1).run(inputs)
    return dict(Counter(mlperf.CLASSES[one] for one in scores.argmax(axis=1)))


@pytest.mark.parametrize("fleet", ["mosquitto"], indirect=True)
def test_reference_models_answer_every_row_on_a_device(fleet, player, shared_data, tmp_path):
    bindings, packages, labels = {}, [], {}
    for name, (file, contract, width) in MODELS.items():
        path, inputs = shared_data / "models" / file, _inputs(width)
        np.save(tmp_path / f"{name}.npy", inputs)
        source = {"kind": "tensor-file", "path": str(tmp_path / f"{name}.npy")}
        bindings[name] = {"source": source}
        packages.append(mlperf.package_file(path, name, contract(), fleet.signer))
        labels[name] = _expected_labels(path, inputs)
    device = player("gw-mlperf")
    device.enrol(bindings)
    device.start()
    device.run(*packages)
    device.wait_until_settled()
    for name in MODELS:
        windows = fleet.client.windows("gw-mlperf", model=name)
        counts = Counter()
        for one in windows:
            counts.update(one["labels"])
        assert sum(one["in_count"] for one in windows) == ROWS, windows
        assert sum(one["ok"] for one in windows) == ROWS, windows
        assert dict(counts) == labels[name]
    active = {one["model"]: one["active_version"] for one in device.now()["models"]}
    assert active == dict.fromkeys(MODELS, "1")
