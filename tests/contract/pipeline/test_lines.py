"""Lines over real sockets: slow, broken, greedy and vanishing peers, and far too many rows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket

import pytest

from agent.sources import SourceContext, Tally, open_source

pytestmark = pytest.mark.contract


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def line(number, row):
    return json.dumps({"time_ms": number, **row(number)}).encode() + b"\n"


@pytest.fixture
def told():
    return []


@pytest.fixture
def lines_source(told):
    """Makes a source of lines: `lines_source("tcp", listen=…)`."""

    def make(kind, **options):
        tally = Tally(lambda code, sentence: told.append(code))
        return open_source(
            kind, {"time_column": "time_ms", **options}, SourceContext("echo", tally=tally)
        )

    return make


async def _connect(open_connection):
    for _ in range(500):
        with contextlib.suppress(OSError):
            return await open_connection()
        await asyncio.sleep(0.02)
    raise AssertionError("nobody listens")


async def _settled(run, totals, rows):
    """Wait until so many rows are settled, and return their totals."""
    for _ in range(1500):
        found = totals(await run.take())
        if found.in_count >= rows:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{found.in_count} of {rows} rows settled")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_peers_of_every_kind_are_read_side_by_side(
    kind, pool, release, bench, totals, row, lines_source, told, port, tmp_path
):
    where = f"127.0.0.1:{port}" if kind == "tcp" else str(tmp_path / "s")

    async def client():
        if kind == "tcp":
            return (await _connect(lambda: asyncio.open_connection("127.0.0.1", port)))[1]
        return (await _connect(lambda: asyncio.open_unix_connection(where)))[1]

    source = lines_source(kind, listen=where, max_line_bytes=200, max_connections=3)
    run = bench(source)
    await run.start(await pool.load(release()))
    slow, broken, greedy = await client(), await client(), await client()
    for byte in line(0, row):  # a line in many pieces
        slow.write(bytes([byte]))
        await slow.drain()
    broken.write(line(1, row) + b'{"time_ms": 2, "a"')
    broken.close()
    greedy.write(b"x" * 100_000 + b"\nnonsense\n" + line(3, row))
    await greedy.drain()
    found = await _settled(run, totals, 5)
    assert found.ok == 3
    assert found.dropped == {"unparsable": 2, "too-long": 1}
    crowd = [await client() for _ in range(4)]
    for number, one in enumerate(crowd, 10):
        with contextlib.suppress(OSError):
            one.write(line(number, row))
            await one.drain()
    await run.answered(4)
    assert sorted(told) == ["too-long", "too-many-connections", "unparsable"]
    assert {0, 1, 3} <= set(run.answers)
    for number, values in run.answers.items():
        assert values == [row(number)["a"], row(number)["b"]]
    for one in (slow, greedy, *crowd):
        one.close()
    run.task.cancel()
    await asyncio.wait({run.task}, timeout=20)


async def test_a_connection_of_ours_is_made_again(
    pool, release, bench, totals, row, lines_source, told, port
):
    """The far side is not there yet, then answers, then goes away twice."""
    run = bench(lines_source("tcp", connect=f"127.0.0.1:{port}"))
    await run.start(await pool.load(release()))
    while told != ["not-connected"]:  # noqa: ASYNC110 - told by the source, which has no event
        await asyncio.sleep(0.01)
    numbers = iter(range(3))

    async def serve(reader, writer):
        if (number := next(numbers, None)) is not None:
            writer.write(line(number, row))
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        await run.answered(3)
    assert sorted(run.answers) == [0, 1, 2]
    run.task.cancel()
    await asyncio.wait({run.task}, timeout=20)


async def test_standard_input_is_read_to_its_end(
    pool, release, bench, totals, row, lines_source, monkeypatch
):
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stdin, os.fdopen(write, "wb") as feed:
        monkeypatch.setattr("sys.stdin", stdin)
        run = bench(lines_source("stdin"))
        await run.start(await pool.load(release()))
        feed.write(b"".join(line(n, row) for n in range(300)) + b"no row\n")
        feed.close()
        await run.finish()
    found = totals(await run.take())
    assert (found.in_count, found.ok, found.dropped) == (301, 300, {"unparsable": 1})


async def test_a_port_that_is_taken_is_named(pool, release, bench, lines_source):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        run = bench(lines_source("tcp", listen=where))
        await run.start(await pool.load(release()))
        with pytest.raises(Exception, match=f"source.listen {where}"):
            await run.finish()


@pytest.mark.parametrize("overload", [None, "oldest"])
async def test_ten_thousand_rows_a_second_into_a_slow_model_cost_rows_not_memory(
    pool, release, bench, totals, row, lines_source, port, overload
):
    """The model does about 1,000 rows a second; the sender does not wait for it."""
    rows, held = 20_000, []
    run = bench(lines_source("tcp", listen=f"127.0.0.1:{port}"), overload=overload)
    await run.start(await pool.load(release(hidden=2600, deadline_ms=10_000.0)))
    _, writer = await _connect(lambda: asyncio.open_connection("127.0.0.1", port))
    for start in range(0, rows, 100):
        writer.write(b"".join(line(n, row) for n in range(start, start + 100)))
        await writer.drain()
        held.append(run.pipeline._buffer.rows)
        await asyncio.sleep(0.01)
    writer.close()
    found = await _settled(run, totals, rows)
    assert found.in_count == rows == found.ok + found.dropped["overload"]
    assert set(found.dropped) == {"overload"}
    assert found.failed == {}
    assert found.dropped["overload"] > 0 < found.ok
    assert max(held) <= 1024
    assert len(run.answers) == found.ok
    assert run.incidents == []
    kept = {rows - 1} if overload is None else set(range(1024))
    assert kept <= set(run.answers)
    run.task.cancel()
    await asyncio.wait({run.task}, timeout=20)
