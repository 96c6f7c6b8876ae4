"""A peer with tritonclient, in a process of its own: it brings gevent, which pytest need not meet.

Prints what it found as JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1], concurrency=4)
rows = np.stack([np.arange(100), -np.arange(100)], axis=1).astype(np.float32)


def tensor(values, binary=True):
    """An input of these rows."""
    found = triton.InferInput("input", list(values.shape), "FP32")
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def read(result):
    """Outputs as lists."""
    return {
        "y0": result.as_numpy("y0").tolist(),
        "label": [
            one.decode() if isinstance(one, bytes) else str(one) for one in result.as_numpy("label")
        ],
    }


def infer(binary_in, *outputs):
    """All rows at once."""
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name, binary in outputs]
    return read(client.infer("echo", [tensor(rows, binary_in)], outputs=wanted or None))


found = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model_ready": client.is_model_ready("echo"),
    "other_version_ready": client.is_model_ready("echo", "9.9.9"),
    "other_model_ready": client.is_model_ready("nope"),
    "metadata": client.get_model_metadata("echo", "1.0.0"),
    "binary": infer(True),
    "json": infer(False, ("y0", False), ("label", False)),
    "mixed": infer(True, ("label", True), ("y0", False)),
}
waiting = [client.async_infer("echo", [tensor(rows[n : n + 1])]) for n in range(40)]
found["parallel"] = [float(one.get_result().as_numpy("y0")[0]) for one in waiting]
try:
    client.infer("echo", [tensor(np.zeros((1, 3), np.float32))])
except InferenceServerException as error:
    found["refused"] = str(error)
client.close()
print(json.dumps(found))
