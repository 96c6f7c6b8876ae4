"""Sources of a site: a real mosquitto, pymodbus' server, real HTTP, another model's answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from agent.local_http import LocalHttp
from agent.sources import SourceContext, Tally, open_source

pytestmark = pytest.mark.contract


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def told():
    return []


@pytest.fixture
def site_source(told):
    """Makes a source: `site_source("mqtt", topic="a")`."""

    def make(kind, http=None, **options):
        tally = Tally(lambda code, sentence: told.append(code))
        return open_source(kind, options, SourceContext("echo", tally=tally, http=http))

    return make


async def _until(condition):
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to that")


async def _stop(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=20)


@pytest.fixture
def mosquitto(port, tmp_path):
    """A site's broker: `mosquitto.start()`, `mosquitto.stop()`, `mosquitto.publish(topic, …)`."""

    class Broker:
        def start(self):
            path = tmp_path / "mosquitto.conf"
            path.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
            binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
            self.process = subprocess.Popen([binary, "-c", path], stderr=subprocess.DEVNULL)

        def stop(self):
            self.process.kill()
            self.process.wait()

        async def publish(self, *messages):
            """Each reaches the broker's subscribers."""
            client = mqtt.Client(CallbackAPIVersion.VERSION2)
            for _ in range(500):
                with contextlib.suppress(OSError):
                    client.connect("127.0.0.1", port)
                    break
                await asyncio.sleep(0.02)
            client.loop_start()
            for topic, payload in messages:
                info = client.publish(topic, payload, qos=1)
                await asyncio.to_thread(info.wait_for_publish, 20)
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)

    broker = Broker()
    broker.start()
    yield broker
    broker.stop()


async def test_messages_of_a_topic_are_rows_also_after_the_broker_was_away(
    pool, release, bench, totals, row, site_source, mosquitto, port, told
):
    source = site_source(
        "mqtt", topic="plant/+/rows", port=port, time_column="$.at", max_message_bytes=1000,
        columns={"a": "$.v.a", "b": "$.v.b"},
    )  # fmt: skip
    run = bench(source)
    await run.start(await pool.load(release()))

    def message(number):
        return {"at": number, "v": row(number)}

    async def knock(first):
        """Publish until the subscription stands; give what was answered."""
        number = first
        while not any(n >= first for n in run.answers):
            await mosquitto.publish(("plant/1/rows", json.dumps(message(number))))
            number += 1

    await knock(0)
    start = len(run.answers)
    await mosquitto.publish(
        ("plant/2/rows", json.dumps([message(1000), message(1001)])),
        ("plant/2/rows", b"nonsense"),
        ("plant/2/rows", b'{"at": 3, "v": {"a": 1}}'),
        ("plant/2/rows", b"x" * 2000),
        ("other", json.dumps(message(5000))),
        ("plant/3/rows", json.dumps(message(1002))),
    )
    await run.answered(start + 3)
    mosquitto.stop()
    mosquitto.start()
    await knock(2000)
    found = totals(await run.take())
    assert found.dropped == {"unparsable": 2, "too-long": 1}
    assert {1000, 1001, 1002} <= set(run.answers)
    assert 5000 not in run.answers
    for number, values in run.answers.items():
        assert values == [row(number)["a"], row(number)["b"]]
    await _stop(run.task)


async def test_a_feature_a_topic_makes_a_row_of_the_newest_values(
    pool, release, bench, totals, site_source, mosquitto, port
):
    topics = {"a": "t/a", "b": "t/b"}
    run, values = bench(site_source("mqtt", topics=topics, port=port, columns={"b": "$.value"})), []
    run.pipeline.add_action(_Collect(values))
    run.answers = _Ignoring()
    await run.start(await pool.load(release()))
    while not values:
        await mosquitto.publish(("t/a", b"1.5"), ("t/b", b'{"value": 2.5}'))
    await mosquitto.publish(("t/a", b"7"), ("t/b", b'{"value": 8}'))
    await _until(lambda: [7.0, 8.0] in values)
    assert [7.0, 2.5] in values  # a's message came first, with b's newest value
    await _stop(run.task)


class _Ignoring(dict):
    """Answers of rows whose times are the clock's, so that two may share one."""

    def __contains__(self, key):
        return False


class _Collect:
    """An action that only notes what was answered."""

    def __init__(self, values):
        self._values = values

    def __call__(self, answers):
        self._values.extend(answers.values)

    def flush(self):
        pass

    def close(self):
        pass


@pytest.fixture
async def modbus(port):
    """A device with registers of every kind; `await modbus.start()` again after `stop`."""

    class Device:
        server = None

        async def start(self):
            data = (
                [SimData(0, values=[True, False], datatype=DataType.BITS)],
                [SimData(0, values=[False, True], datatype=DataType.BITS)],
                [
                    SimData(0, values=-123, datatype=DataType.INT16),
                    SimData(1, values=1.5, datatype=DataType.FLOAT32),
                    SimData(100, values=70_000, datatype=DataType.UINT32),
                ],
                [SimData(7, values=[0x0001, 0x0002], datatype=DataType.REGISTERS)],
            )
            self.server = ModbusTcpServer(SimDevice(1, data), address=("127.0.0.1", port))
            await self.server.serve_forever(background=True)

        async def stop(self):
            await self.server.shutdown()

    device = Device()
    await device.start()
    yield device
    await device.stop()


async def test_registers_become_rows_and_a_device_that_goes_away_comes_back(
    pool, release, bench, totals, site_source, modbus, port, told
):
    features = ("t", "f", "u", "swapped", "coil", "input_bit", "absent")
    source = site_source(
        "modbus", host="127.0.0.1", port=port, rate_hz=50, timeout_seconds=1,
        registers=[
            {"feature": "t", "address": 0, "type": "int16", "scale": 0.1, "offset": 1},
            {"feature": "f", "address": 1, "type": "float32"},
            {"feature": "u", "address": 100, "type": "uint32"},
            {"feature": "swapped", "address": 7, "table": "input", "type": "uint32",
             "word_order": "little"},
            {"feature": "coil", "address": 0, "table": "coil"},
            {"feature": "input_bit", "address": 1, "table": "discrete"},
            {"feature": "absent", "address": 9000},
        ],
    )  # fmt: skip
    run, values = bench(source), []
    run.answers = _Ignoring()
    run.pipeline.add_action(_Collect(values))
    filled = {"missing": "fill", "fill": -1.0}
    await run.start(await pool.load(release(features=features, feature=filled)))
    await _until(lambda: len(values) > 3)
    assert values[0] == pytest.approx([-11.3, 1.5, 70_000, 0x00020001, 1, 1, -1], rel=1e-6)
    await modbus.stop()
    await _until(lambda: "not-read" in told)
    seen = len(values)
    await modbus.start()
    await _until(lambda: len(values) > seen)
    found = totals(await run.take())
    assert found.dropped["not-read"] >= 1
    assert set(found.dropped) == {"not-read"}
    assert set(told) == {"refused-holding 9000 to 9000", "not-read"}
    await _stop(run.task)


async def test_rows_are_posted_and_pushed_back_when_too_many_wait(
    pool, release, bench, totals, row, site_source, told
):
    http = LocalHttp()
    serving = asyncio.create_task(http.run(("127.0.0.1", 0), ""))
    await _until(lambda: http.port)
    source = site_source("http", http=http, time_column="time_ms", max_rows=500)
    run = bench(source, buffer_rows=64)

    def body(numbers):
        return [{"time_ms": n, **row(n)} for n in numbers]

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http.port}", timeout=20) as peer:
        early = await peer.post("/rows/echo", json=body([0]))
        assert (early.status_code, early.json()) == (
            503, {"error": "/rows/echo: no release answers yet"},
        )  # fmt: skip
        worker = await pool.load(release())
        await run.start(worker)
        await _until(lambda: source._reading)
        lines = b"".join(json.dumps(one).encode() + b"\n" for one in body([0, 1])) + b"x\n"
        answer = await peer.post("/rows/echo", content=lines)
        assert (answer.status_code, answer.json()) == (202, {"taken": 3, "unreadable": 1})
        assert (await peer.post("/rows/echo", json=body([2])[0])).status_code == 202
        await run.answered(3)
        async with run.pipeline._lock:  # the model is busy
            sent, pushed_back = 3, None
            while pushed_back is None and sent < 5000:
                answer = await peer.post("/rows/echo", json=body(range(sent, sent + 100)))
                if answer.status_code == 429:
                    pushed_back = answer
                else:
                    sent += 100
            assert pushed_back.headers["retry-after"] == "1"
        assert sent <= 3 + 500 + 64 + 64 + 100
        assert (await peer.post("/rows/echo", json=body(range(501)))).status_code == 413
        assert (await peer.get("/rows/echo")).status_code == 405
        assert (await peer.post("/rows/other", json=[])).status_code == 404
        page = await peer.post("/rows/echo", json=[], headers={"origin": "http://evil.example"})
        assert page.status_code == 403
        big = await peer.post("/rows/echo", content=b"x" * (9 << 20))
        assert big.status_code == 413
    await run.answered(sent)
    found = totals(await run.take())
    assert (found.ok, found.dropped) == (sent, {"unparsable": 1})
    await _stop(run.task, serving)


async def test_a_peer_that_speaks_no_http_or_too_slowly_costs_nobody_else(site_source):
    http = LocalHttp()
    serving = asyncio.create_task(http.run(("127.0.0.1", 0), ""))
    await _until(lambda: http.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    writer.write(b"\x16\x03\x01 no http\r\n\r\n")
    assert (await reader.read(100)).startswith(b"HTTP/1.1 400")
    _, half = await asyncio.open_connection("127.0.0.1", http.port)
    half.write(b"POST /rows/echo HTTP/1.1\r\nContent-Le")
    _, endless = await asyncio.open_connection("127.0.0.1", http.port)
    endless.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http.port}", timeout=20) as peer:
        assert (await peer.get("/nowhere")).json() == {"error": "no such path: /nowhere"}
    for one in (writer, half, endless):
        one.close()
    await _stop(serving)


async def test_the_second_step_sees_each_answer_of_the_first_once(
    pool, release, bench, totals, row, write_csv, site_source
):
    """The first doubles, the second takes its outputs under other names, and each is accounted."""
    second = bench(site_source("model", model="echo", columns={"x": "y0", "z": "y1"}))
    await second.start(await pool.load(release(2, features=("z", "x"))))
    first = bench(write_csv(1000, missing={5}))
    first.pipeline.add_action(second.pipeline._source)
    await _until(lambda: second.pipeline._source._reading)
    await first.run(await pool.load(release(1, gain=2.0)))
    await second.answered(999)
    one, two = totals(await first.take()), totals(await second.take())
    assert (one.in_count, one.ok, one.dropped) == (1000, 999, {"missing": 1})
    assert (two.in_count, two.ok, two.dropped) == (999, 999, {})
    for number, values in second.answers.items():
        assert values == [2 * row(number)["b"], 2 * row(number)["a"]]
    await _stop(second.task)
