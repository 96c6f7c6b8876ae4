"""What the Open Inference Protocol's paths answer, from the models this device runs now."""

from __future__ import annotations

import array
import sys

from agent.inference.asker import Asker
from agent.inference.protocol import (
    Call,
    Tensor,
    decode_call,
    describe_model,
    encode_answer,
    output_names,
)
from agent.local_http import HttpError, Request, Response
from agent.pipeline import WorkerPipeline
from agent.workers.frames import InferAnswer
from agent.workers.pool import Worker
from shoal import __version__


class InferenceService:
    """A handler of `LocalHttp`."""

    def __init__(self, timeout_seconds: float = 10.0) -> None:
        self._timeout_seconds = timeout_seconds
        self._pipelines: dict[str, WorkerPipeline] = {}
        self._askers: dict[str, Asker] = {}

    def add(self, model: str, pipeline: WorkerPipeline) -> None:
        """Answer for this model too."""
        self._pipelines[model] = pipeline
        self._askers[model] = Asker(pipeline)

    async def handle(self, request: Request) -> Response | None:
        """Answer what is below /v2."""
        match request.method, request.parts:
            case _, (root, *_) if root != "v2":
                return None
            case "GET", ("v2",):
                return Response.of_json(
                    {
                        "name": "shoal-agent",
                        "version": __version__,
                        "extensions": ["binary_tensor_data"],
                    }
                )
            case "GET", ("v2", "health", "live"):
                return Response.of_json({"live": True})
            case "GET", ("v2", "health", "ready"):
                return _ready(all(one.worker for one in self._pipelines.values()))
            case "GET" | "POST", ("v2", "models", model, "versions", version, *rest):
                return await self._of_model(request, model, version, tuple(rest))
            case "GET" | "POST", ("v2", "models", model, *rest):
                return await self._of_model(request, model, "", tuple(rest))
        return None

    async def _of_model(
        self, request: Request, model: str, version: str, rest: tuple[str, ...]
    ) -> Response | None:
        if model not in self._pipelines:
            raise HttpError(404, f"model {model}: this device has {self._names()}")
        worker = self._pipelines[model].worker
        found = worker is not None and version in ("", worker.release.manifest.version)
        match request.method, rest:
            case "GET", ("ready",):
                return _ready(found)
            case "GET", ():
                worker = self._running(model, version)
                manifest = worker.release.manifest
                platform = f"{worker.release.variant.runtime}_{worker.facts.runtime}"
                return Response.of_json(
                    describe_model(
                        model, manifest.version, platform, manifest.contract, worker.labels
                    )
                )
            case "POST", ("infer",):
                return await self._infer(request, model, self._running(model, version))
        return None

    async def _infer(self, request: Request, model: str, worker: Worker) -> Response:
        contract = worker.release.manifest.contract
        call = decode_call(request.body, request.headers, contract, worker.labels)
        seconds = min(call.timeout_seconds, self._timeout_seconds)
        answers = await self._askers[model].ask(worker, call.windows, call.values, seconds)
        tensors = _tensors(worker, call, answers)
        return encode_answer(call, model, worker.release.manifest.version, tensors)

    def _running(self, model: str, version: str) -> Worker:
        worker = self._pipelines[model].worker
        if worker is None:
            raise HttpError(503, f"model {model}: no release answers yet")
        running = worker.release.manifest.version
        if version not in ("", running):
            raise HttpError(404, f"model {model}: expected version {running}, got {version}")
        return worker

    def _names(self) -> str:
        return ", ".join(self._pipelines) or "none"


def _ready(is_ready: bool) -> Response:
    return Response.of_json({"ready": is_ready}, 200 if is_ready else 400)


def _tensors(worker: Worker, call: Call, answers: list[InferAnswer]) -> list[Tensor]:
    """Every output of the contract, and the label."""
    contract = worker.release.manifest.contract
    values = array.array("f", b"".join(one.values for one in answers))
    if sys.byteorder == "big":
        values.byteswap()
    width = len(contract.outputs)
    found = [
        Tensor(output.name, values[at::width].tolist())
        for at, output in enumerate(contract.outputs)
    ]
    if len(output_names(contract, worker.labels)) > width:
        labels = b"".join(one.labels for one in answers)
        found.append(Tensor("label", texts=[worker.labels[index] for index in labels]))
    return found
