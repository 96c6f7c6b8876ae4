"""Actions: written in full, bounded, and never in the way."""

from __future__ import annotations

import http.server
import json
import sqlite3
import threading

import pytest

from agent.actions import ActionContext, build_action
from agent.actions.queued import QueuedAction, WriteError
from agent.ports import Answers


def _answers(numbers, label="normal"):
    return Answers(
        "pump", "1.0.0", 1, ["score"], list(numbers), [[n / 2] for n in numbers],
        [label for _ in numbers],
    )  # fmt: skip


@pytest.fixture
def build():
    """Makes actions by table; `told` collects what they say."""
    told = []
    built = []

    def make(**table):
        context = ActionContext("pump", lambda a: None, lambda *words: told.append(words))
        built.append(build_action(table, context))
        return built[-1]

    make.told = told
    yield make
    for action in built:
        action.close()


def test_sqlite_keeps_the_newest_rows(build, tmp_path):
    path = tmp_path / "p.sqlite"
    action = build(kind="sqlite", path=str(path), max_rows=100)
    for start in range(0, 300, 10):
        action(_answers(range(start, start + 10)))
    action.close()
    rows = sqlite3.connect(path).execute("SELECT time_ms, outputs FROM predictions").fetchall()
    assert rows == [(n, json.dumps({"score": n / 2})) for n in range(200, 300)]


def test_a_full_file_is_rotated_and_old_ones_go(build, tmp_path):
    action = build(kind="file", path=str(tmp_path / "p.ndjson"), max_bytes=4096, keep=2)
    writer = action._writer
    for start in range(0, 500, 50):
        writer.write([_answers(range(start, start + 50))], threading.Event())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["p.ndjson", "p.ndjson.1", "p.ndjson.2"]
    last = (tmp_path / "p.ndjson").read_text().splitlines()[-1]
    assert json.loads(last) == {
        "time_ms": 499, "model": "pump", "version": "1.0.0", "label": "normal", "score": 249.5,
    }  # fmt: skip


def test_only_the_labels_asked_for_are_written(build, tmp_path):
    path = tmp_path / "p.ndjson"
    action = build(kind="file", path=str(path), labels=["anomaly"])
    action(_answers([1, 2]))
    action(_answers([3], label="anomaly"))
    action.close()
    assert [json.loads(line)["time_ms"] for line in path.read_text().splitlines()] == [3]


class _Stuck:
    """A writer that does nothing until it is let go."""

    def __init__(self):
        self.entered, self.go = threading.Event(), threading.Event()
        self.rows = []

    def write(self, batch, stopping):
        self.entered.set()
        self.go.wait(20)
        self.rows += [ms for one in batch for ms in one.times_ms]

    def close(self):
        pass


def test_a_stuck_writer_costs_the_oldest_rows_and_no_time():
    writer, told = _Stuck(), []
    action = QueuedAction(
        "x", writer, max_rows=100, batch_rows=1, tell=lambda *words: told.append(words)
    )
    action(_answers([0]))
    assert writer.entered.wait(20)
    for number in range(1, 1001):
        action(_answers([number]))  # returns, though nothing is written
    assert action.lost == {"queue-full": 900}
    assert [code for code, _ in told] == ["action-queue-full"]
    writer.go.set()
    action.close()
    assert writer.rows == [0, *range(901, 1001)]
    assert told[-1] == ("action-recovered", "action x: writes again, lost 900 rows")
    assert action.written + action.lost.total() == 1001


def test_a_writer_that_fails_is_told_once_and_its_rows_are_counted(tmp_path, build):
    path = tmp_path / "none" / "p.sqlite"
    action = build(kind="sqlite", path=str(path))
    action(_answers(range(10)))
    action.close()
    assert action.lost == {"not-written": 10}
    ((code, sentence),) = build.told
    assert code == "action-not-written"
    assert str(path) in sentence


@pytest.fixture
def hook():
    """A real HTTP server that answers as told: `hook.answers = [503, 200]`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.seen.append((dict(self.headers), json.loads(body)))
            self.send_response(server.answers.pop(0) if server.answers else 200)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.seen = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/hook?x=1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_tried_again_with_the_same_key_until_it_is_taken(hook, build, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    hook.answers = [503, 429, 200]
    action = build(kind="webhook", url=hook.url, token_file=str(tmp_path / "token"))
    action._writer.write([_answers([7])], threading.Event())
    assert len(hook.seen) == 3
    assert len({headers["Idempotency-Key"] for headers, _ in hook.seen}) == 1
    headers, body = hook.seen[-1]
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "rows": [
            {"time_ms": 7, "model": "pump", "version": "1.0.0", "label": "normal", "score": 3.5}
        ]
    }


@pytest.mark.parametrize(("answers", "tries"), [([400], 1), ([302], 1), ([500, 500], 2)])
def test_a_webhook_that_refuses_costs_its_batch_and_no_more(hook, build, answers, tries):
    hook.answers = list(answers)
    action = build(kind="webhook", url=hook.url, max_tries=2)
    with pytest.raises(WriteError, match=f"answered {answers[0]} .*try {tries}"):
        action._writer.write([_answers([7])], threading.Event())
    action._writer.write([_answers([8])], threading.Event())
    assert len(hook.seen) == tries + 1
