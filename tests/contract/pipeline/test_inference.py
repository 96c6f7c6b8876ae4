"""The Open Inference Protocol as a client of others speaks it, beside the pipeline's own rows."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

from agent.inference import InferenceService
from agent.local_http import LocalHttp
from shoal.protocol.manifest import OutputField, RawOutputs, Threshold

pytestmark = pytest.mark.contract

TRITON = Path(__file__).parent / "triton_peer.py"


class Served:
    """A pipeline's model over HTTP."""

    def __init__(self, run, port, socket):
        self.run, self.port, self.socket = run, port, socket

    def peer(self):
        limits = httpx.Limits(max_connections=16)
        url = f"http://127.0.0.1:{self.port}"
        return httpx.AsyncClient(base_url=url, timeout=30, limits=limits)


@pytest.fixture
async def serve(bench, write_csv, tmp_path):
    """Serves a worker as model `echo`: `await serve(worker)`; the replay has not begun."""
    tasks = []

    async def make(worker, timeout_seconds=20.0, rows=10):
        run = bench(write_csv(rows))
        if worker is not None:
            await run.pipeline.swap(worker)
        service = InferenceService(timeout_seconds)
        service.add("echo", run.pipeline)
        http = LocalHttp()
        http.add(service.handle)
        socket = str(tmp_path / "http.sock")
        tasks.append(asyncio.create_task(http.run(("127.0.0.1", 0), socket)))
        while not (http.port and Path(socket).exists()):  # noqa: ASYNC110, ASYNC240 - no event
            await asyncio.sleep(0.01)
        return Served(run, http.port, socket)

    yield make
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _labelled(release, **more):
    """A release that labels a row by its first value."""
    post = [RawOutputs(fields=["y0", "y1"]), Threshold(field="y0", above=10)]
    outputs = [OutputField(name="y0"), OutputField(name="y1")]
    return release(contract={"postprocess": post, "outputs": outputs}, **more)


def _body(rows, **more):
    shape = [len(rows), len(rows[0])]
    if isinstance(rows[0][0], list):
        shape.append(len(rows[0][0]))
    tensor = {"name": "input", "shape": shape, "datatype": "FP32", "data": rows}
    return {"inputs": [tensor], **more}


async def test_tritonclient_finds_the_model_and_gets_its_answers(pool, release, serve, totals):
    served = await serve(await pool.load(_labelled(release)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, TRITON, f"127.0.0.1:{served.port}", stdout=asyncio.subprocess.PIPE
    )
    told, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    found = json.loads(told)
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert (found["other_version_ready"], found["other_model_ready"]) == (False, False)
    assert found["metadata"]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}]
    assert [one["name"] for one in found["metadata"]["outputs"]] == ["y0", "y1", "label"]
    for way in ("binary", "json", "mixed"):
        assert found[way]["y0"] == [float(n) for n in range(100)]
        assert found[way]["label"] == ["normal"] * 11 + ["anomaly"] * 89
    assert found["parallel"] == [float(n) for n in range(40)]
    assert "expected FP32 [1 to 4096, 2], got FP32 [1, 3]" in found["refused"]
    account = totals(await served.run.take())
    assert (account.in_count, account.ok) == (340, 340)
    assert account.statistics_rows == 340


async def test_rows_of_the_source_and_of_peers_share_a_worker_and_its_account(
    pool, release, serve, totals, row
):
    served = await serve(await pool.load(release()), rows=1500)
    served.run.task = asyncio.create_task(served.run.pipeline.run())
    async with served.peer() as peer:
        answers = await asyncio.gather(
            *[peer.post("/v2/models/echo/infer", json=_body([[n, -n]])) for n in range(100)]
        )
    for number, answer in enumerate(answers):
        outputs = {one["name"]: one["data"] for one in answer.json()["outputs"]}
        assert outputs == {"y0": [number], "y1": [-number]}
    await served.run.finish()
    found = totals(await served.run.take())
    assert (found.in_count, found.ok) == (1600, 1600)
    assert set(served.run.answers) == set(range(1500))  # what peers asked is no one else's


@pytest.mark.parametrize("stride", [1, 3])
async def test_a_window_is_a_tensor_of_three_dimensions(pool, release, serve, stride):
    contract = {"stride_rows": stride}
    served = await serve(await pool.load(release(window_rows=3, contract=contract)))
    windows = [[[w * 10 + r, 0.5] for r in range(3)] for w in range(50)]
    async with served.peer() as peer:
        described = (await peer.get("/v2/models/echo")).json()
        assert described["inputs"][0]["shape"] == [-1, 3, 2]
        answer = await peer.post("/v2/models/echo/infer", json=_body(windows, id="x"))
    assert answer.json()["id"] == "x"
    outputs = {one["name"]: one["data"] for one in answer.json()["outputs"]}
    assert outputs["y4"] == [w * 10 + 2 for w in range(50)]


async def test_it_speaks_over_a_unix_socket_too(pool, release, serve):
    served = await serve(await pool.load(release()))
    transport = httpx.AsyncHTTPTransport(uds=served.socket)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as peer:
        answer = await peer.get("/v2")
    assert answer.json()["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"datatype": "INT32"}, "got INT32 [1, 2]"),
        ({"shape": [0, 2]}, "got [0, 2]"),
        ({"shape": [2]}, "got FP32 [2]"),
        ({"shape": [1 << 40, 2]}, "got [1099511627776, 2]"),
        ({"name": "other"}, "expected one tensor named input, got other"),
        ({"data": [1]}, "expected 2 values, got 1"),
        ({"data": "text"}, "data holds what is no number"),
        ({"data": [1, None]}, "data holds what is no number"),
        ({"data": [[1], 2]}, "data holds what is no number"),
        ({"parameters": {"binary_data_size": 8}}, "expected 8 bytes behind the header, got 0"),
    ],
)
async def test_what_is_no_request_is_refused_in_the_protocol_s_form(
    pool, release, serve, totals, change, words
):
    served = await serve(await pool.load(release()))
    body = _body([[1, 2]])
    body["inputs"][0] |= change
    async with served.peer() as peer:
        answer = await peer.post("/v2/models/echo/infer", json=body)
        assert answer.status_code == 400
        assert list(answer.json()) == ["error"]
        assert words in answer.json()["error"]
        assert (await peer.post("/v2/models/echo/infer", content=b"{")).status_code == 400
        assert (await peer.post("/v2/models/nope/infer", json=body)).status_code == 404
    assert await served.run.take() == []  # what never reached the model is no row


async def test_without_a_release_it_is_not_ready_and_says_so(serve):
    served = await serve(None)
    async with served.peer() as peer:
        assert (await peer.get("/v2/health/live")).status_code == 200
        assert (await peer.get("/v2/health/ready")).status_code == 400
        answer = await peer.post("/v2/models/echo/infer", json=_body([[1, 2]]))
        assert (answer.status_code, answer.json()) == (
            503, {"error": "model echo: no release answers yet"},
        )  # fmt: skip


async def test_a_request_that_waits_too_long_is_given_up(pool, release, serve, totals):
    served = await serve(await pool.load(release()), timeout_seconds=0.2)
    async with served.peer() as peer:
        async with served.run.pipeline._lock:  # the model is busy
            answer = await peer.post("/v2/models/echo/infer", json=_body([[1, 2]]))
        assert (answer.status_code, answer.json()) == (504, {"error": "no answer within 0.2 s"})
        answer = await peer.post("/v2/models/echo/infer", json=_body([[3, 4]]))
        assert answer.status_code == 200


async def test_a_worker_killed_over_a_request_costs_the_peer_nothing(pool, release, serve, totals):
    worker = await pool.load(release())
    served = await serve(worker)
    os.kill(worker.pid, signal.SIGKILL)
    async with served.peer() as peer:
        answer = await peer.post("/v2/models/echo/infer", json=_body([[1, 2]]))
    assert answer.json()["outputs"][0]["data"] == [1]
    found = totals(await served.run.take())
    assert (found.in_count, found.ok, found.restarts) == (1, 1, 1)


async def test_a_peer_whose_row_kills_gets_an_error_and_the_others_get_answers(
    pool, fatal_release, serve, totals
):
    served = await serve(await pool.load(fatal_release()))
    rows = [[-666.0 if number == 7 else number, 0.5] for number in range(20)]
    async with served.peer() as peer:
        answers = await asyncio.gather(
            *[peer.post("/v2/models/echo/infer", json=_body([one])) for one in rows]
        )
    assert [one.status_code for one in answers] == [500 if n == 7 else 200 for n in range(20)]
    assert answers[7].json()["error"].startswith("quarantined: worker ")
    found = totals(await served.run.take())
    assert (found.in_count, found.ok, found.failed) == (20, 19, {"quarantined": 1})
