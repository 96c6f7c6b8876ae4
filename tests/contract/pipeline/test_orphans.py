"""No worker outlives who started it, however that one ends."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys

import psutil
import pytest

from agent.workers.forkserver_client import Forkserver, ForkserverError

pytestmark = pytest.mark.contract

AGENT = """
import asyncio, sys
from pathlib import Path
from agent.ports import StagedRelease
from agent.workers.pool import ForkserverPool
from shoal.protocol.manifest import decode_manifest

async def main():
    folder, digest = Path(sys.argv[1]), sys.argv[2]
    manifest = decode_manifest((folder / digest).read_bytes())
    release = StagedRelease(manifest, digest, manifest.variants[0], folder)
    pool = ForkserverPool()
    workers = [await pool.load(release) for _ in range(2)]
    print(*pool.pids(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
WAIT_MS = 10_000


class _Gone:
    """Waits for the end of processes that are not our children."""

    def __init__(self, pids):
        self._handles = [os.pidfd_open(pid) for pid in pids]

    def wait(self):
        """True once all have ended."""
        try:
            return all(self._ended(handle) for handle in self._handles)
        finally:
            for handle in self._handles:
                os.close(handle)

    def _ended(self, handle):
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(WAIT_MS))


@pytest.fixture
def agent(release):
    """A process with a forkserver and two workers, and their process ids."""
    staged = release()
    command = [sys.executable, "-c", AGENT, str(staged.folder), staged.manifest_sha256]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        yield process, pids
        process.kill()


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_workers_of_a_killed_agent_do_not_survive(agent, stopped):
    process, pids = agent
    assert len(pids) == 3
    gone = _Gone(pids)
    if stopped:
        os.kill(pids[1], signal.SIGSTOP)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert gone.wait()


def test_workers_of_a_killed_forkserver_do_not_survive(agent):
    _, (server, *workers) = agent
    gone = _Gone(workers)
    os.kill(server, signal.SIGKILL)
    assert gone.wait()


async def test_a_stopped_pool_leaves_no_process(pool, release):
    workers = [await pool.load(release()) for _ in range(2)]
    pids = pool.pids()
    assert len(set(pids)) == 3
    os.kill(workers[0].pid, signal.SIGSTOP)
    await pool.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_pool_goes_on_after_its_forkserver_was_killed(pool, release):
    first = await pool.load(release())
    server = pool.pids()[0]
    gone = _Gone([first.pid])
    os.kill(server, signal.SIGKILL)
    assert await asyncio.to_thread(gone.wait)
    second = await pool.load(release())
    assert (await second.golden()).passed
    assert pool.pids()[0] != server
    assert second.pid in pool.pids()
    await first.close()


async def test_waiting_for_a_workers_end_survives_the_forkservers_own():
    """Who waits hears that nobody can say; a cancellation would end the whole pipeline."""
    server = await Forkserver.start()
    pid, connection, _ = await server.fork()
    waiting = asyncio.create_task(server.wait_exit(pid))
    await asyncio.sleep(0)
    os.kill(server.pid, signal.SIGKILL)
    assert await asyncio.wait_for(waiting, 10) is None
    connection.close()
    await server.stop()


async def test_a_forkserver_that_dies_while_asked_for_a_worker_says_so():
    server = await Forkserver.start()
    files = psutil.Process().num_fds()
    os.kill(server.pid, signal.SIGSTOP)
    asking = asyncio.create_task(server.fork())
    await asyncio.sleep(0)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(ForkserverError) as caught:
        await asyncio.wait_for(asking, 10)
    assert caught.value.code == "forkserver-failed"
    assert (
        psutil.Process().num_fds() == files - 1
    )  # its own socket; none for the worker or its rows
    with pytest.raises(ForkserverError):
        await server.fork()
    await server.stop()


async def test_workers_made_at_the_same_time_do_not_wait_for_one_another(release):
    server = await Forkserver.start()
    made = await asyncio.wait_for(asyncio.gather(*(server.fork() for _ in range(8))), 9)
    assert len({one.pid for one in made}) == 8
    for _, connection, _ in made:
        connection.close()
    await server.stop()
