"""Who a device is, from its first request to its revocation, with real processes and mosquitto."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import msgspec
import paho.mqtt.client as mqtt
import pytest
from local_fleet.agents import COMMAND, Agent, AgentSpec
from local_fleet.fleet import LocalFleet
from paho.mqtt.enums import CallbackAPIVersion

from agent.access import broker_context, load_broker
from shoal.csr import make_request
from shoal.protocol.desired import EnrolmentRequest
from shoal.signing import FileSigner, key_id

DAYS = 20 / 86400
"""A certificate lives twenty seconds."""
WAIT_SECONDS = 90.0

# Renews, and dies by SIGKILL at the n-th rename of what the link reads into its place.
DYING = """
import os, pathlib, sys
left = int(sys.argv.pop(1))
replace = pathlib.Path.replace
def die(self, target):
    global left
    left -= target.name in ("identity.pem", "broker.json")
    if left == 0:
        os.kill(os.getpid(), 9)
    return replace(self, target)
pathlib.Path.replace = die
from agent.renewal import main
main()
"""


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A fleet whose certificates live for seconds."""
    folder = tmp_path_factory.mktemp("identity")
    more = {"enrolment": {"certificate_days": DAYS, "max_pending": 5}}
    with LocalFleet(folder, broker="mosquitto", more=more) as running:
        running.start_controller()
        yield running


@pytest.fixture
def enrolled(short):
    """`enrolled("gw-1")`: a device's folder after enrolment."""

    def make(name):
        short.enrol([AgentSpec(name, "plant", health_seconds=1.0)])
        return short.agents[name]

    return make


@pytest.fixture
def new_agent(short):
    """`new_agent("gw-1", fingerprint="…")`: a folder that is configured and not enrolled."""

    def make(name, url=None, **controller):
        more = {"controller": {"url": url or short.url, **controller}}
        agent = Agent(AgentSpec(name, "plant", more=more), short.folder / "devices" / name)
        agent.prepare(short.url, None)
        return agent

    return make


def _run(agent, *words, text="", seconds=60.0):
    command = [*COMMAND, words[0], "--config", str(agent.config), *words[1:]]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds)


def _state(agent):
    return agent.folder / "state"


def _comes_in(agent):
    """Whether the broker takes what lies in the state folder; the first CONNACK or none."""
    state = _state(agent)
    access = load_broker(state)
    answers, told = [], threading.Event()
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=access.device, protocol=mqtt.MQTTv311
    )

    def hear(_c, _u, _f, reason, _p):
        answers.append(reason)
        told.set()

    client.on_connect = client.on_disconnect = hear
    client.tls_set_context(broker_context(state, access))
    try:
        client.connect(access.host, access.port)
    except (ssl.SSLError, OSError):
        return False
    client.loop_start()
    told.wait(20)
    client.disconnect()
    client.loop_stop()
    return bool(answers) and not answers[0].is_failure and str(answers[0]) == "Success"


def _director(fleet):
    path = fleet.controller.folder / "keys" / "director.key"
    return key_id(FileSigner.load(path).public_key)


def test_a_certificate_is_renewed_unattended_and_a_revoked_device_gets_no_more(short, enrolled):
    agent = enrolled("renews")
    first = load_broker(_state(agent))
    key = (_state(agent) / "device.key").read_bytes()
    short.start_agent("renews")

    def renewals():
        events = short.client.device_events("renews", limit=500)
        return sum(one["code"] == "certificate-renewed" for one in events)

    short.wait_for(lambda: renewals() or None, WAIT_SECONDS, "a renewal")
    assert load_broker(_state(agent)).not_after_ms > first.not_after_ms
    assert (_state(agent) / "device.key").read_bytes() == key
    assert (_state(agent) / "identity.pem").stat().st_mode & 0o077 == 0
    short.wait_for(
        lambda: short.client.device("renews")["online"] or None, WAIT_SECONDS, "online again"
    )

    short.client.revoke_device("renews")
    assert not _comes_in(agent)
    short.stop_agent("renews")
    renewal = [sys.executable, "-m", "agent.renewal", "--config", str(agent.config)]
    ended = subprocess.run(renewal, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr.partition(":")[0]) == (1, "renewal-refused")


def test_a_kill_at_any_step_of_a_renewal_leaves_a_pair_that_works(short, enrolled):
    agent = enrolled("killed")
    before = (_state(agent) / "identity.pem").read_bytes()
    time.sleep(DAYS * 86400 * 0.25)  # a younger certificate would only be given again
    seen = set()
    for step in (1, 2):
        command = [sys.executable, "-c", DYING, str(step), "--config", str(agent.config)]
        ended = subprocess.run(command, timeout=60, check=False)
        assert ended.returncode == -signal.SIGKILL
        assert _comes_in(agent)
        seen.add((_state(agent) / "identity.pem").read_bytes())
    assert before in seen
    assert len(seen) == 2, "no certificate was replaced before the second kill"


def test_a_device_that_comes_too_late_needs_a_token_again(short, enrolled):
    agent = enrolled("late")
    ends = load_broker(_state(agent)).not_after_ms
    time.sleep(max(0.0, ends / 1000 - time.time()) + 0.5)
    assert not _comes_in(agent)
    renewal = [sys.executable, "-m", "agent.renewal", "--config", str(agent.config)]
    ended = subprocess.run(renewal, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("certificate-ended: ")

    token = short.client.create_enrolment_token(device="late")["token"]
    done = _run(agent, "enrol", "--token-file", "-", text=f"{token}\n")
    assert done.returncode == 0, done.stderr
    assert _comes_in(agent)


def test_a_device_without_token_waits_for_an_operator_and_believes_the_pinned_controller(
    short, new_agent
):
    agent = new_agent("asks", fingerprint=_director(short))
    command = [*COMMAND, "enrol", "--config", str(agent.config), "--ask"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            words = process.stdout.readline()
            waiting = short.wait_for(lambda: short.client.admissions() or None, 30.0, "it waits")
            [one] = [one for one in waiting if one["device"] == "asks"]
            assert one["fingerprint"] in words
            assert one["facts"]["arch"]
            short.client.approve_device(one["fingerprint"][:12], labels={"line": "3"})
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert _comes_in(agent)
    assert short.client.device("asks")["labels"] == {"line": "3"}


def test_a_rejected_device_is_told_and_a_wrong_controller_is_not_believed(short, new_agent):
    agent = new_agent("rejected", fingerprint=_director(short))
    first = _run(agent, "enrol", "--ask", "--wait-seconds", "0")
    assert "waiting for an operator" in first.stdout
    assert "not let in within 0 s" in first.stderr
    short.client.reject_device("rejected")
    second = _run(agent, "enrol", "--ask")
    assert second.returncode == 1
    assert "an operator refused it" in second.stderr

    stranger = new_agent("deceived", fingerprint="0" * 64)
    key = json.loads(_run(stranger, "key", "--json").stdout)
    short.client.preauthorise_device("deceived", key["public_key"])
    refused = _run(stranger, "enrol", "--ask")
    assert "not from the controller whose fingerprint is configured" in refused.stderr
    assert not (_state(stranger) / "identity.pem").exists()


def test_a_device_announced_by_its_key_comes_in_at_once_and_once(short, new_agent):
    agent = new_agent("announced", fingerprint=_director(short))
    key = json.loads(_run(agent, "key", "--json").stdout)
    short.client.preauthorise_device("announced", key["public_key"], site="plant")
    other = new_agent("pretends", fingerprint=_director(short))
    _run(other, "key")
    (_state(other) / "device.key").write_bytes((_state(agent) / "device.key").read_bytes())
    refused = _run(other, "enrol", "--ask")
    assert "asked for device announced, not pretends" in refused.stderr

    assert _run(agent, "enrol", "--ask").returncode == 0
    assert _comes_in(agent)
    again = _run(agent, "enrol", "--ask", "--wait-seconds", "0")
    assert "is enrolled" in again.stderr


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (["--token", "t-1.c2hvcnQ"], "", "expected <id>.<secret>"),
        (["--token-file", "-"], "", "expected <id>.<secret>"),
        (["--token-file", "/absent"], "", "token file /absent: "),
        (["--token", "t-000000000000." + "A" * 32], "", "make_a_new_one"),
        ([], "", "enrol: no token; give --token-file"),
        (["--ask"], "", "controller.fingerprint must say whom to believe"),
    ],
)
def test_each_way_of_having_no_good_token_is_a_sentence(new_agent, words, text, expected):
    agent = new_agent("speechless")
    done = _run(agent, "enrol", *words, text=text)
    assert done.returncode == 1
    assert expected.replace("make_a_new_one", "ask for a new one") in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_server_that_is_no_controller_leaves_the_device_as_it_was(short, new_agent, status):
    """A forged answer to a token: sealed by a key of the thief's own, who has not the secret."""

    class Forger(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            body = b"<html>" if status != 200 else forged
            self.send_response(status)
            self.send_header("x-shoal-answer-mac", "0" * 64)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    envelope = {"payload": "e30=", "payloadType": "x", "signatures": []}
    forged = json.dumps(envelope).encode()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        agent = new_agent("robbed", url=f"http://127.0.0.1:{server.server_port}")
        token = short.client.create_enrolment_token(device="robbed")["token"]
        done = _run(agent, "enrol", "--token-file", "-", text=token)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 1
    expected = "not from the controller that made the token" if status == 200 else "is controller"
    assert expected in done.stderr
    assert token.partition(".")[2] not in done.stderr
    left = {path.name for path in _state(agent).iterdir()}
    assert not left & {"identity.pem", "broker.json", "trust.json"}


def test_a_flood_of_strangers_is_slowed_down_and_lets_devices_with_tokens_in(short, enrolled):
    def request(number):
        name = f"flood-{number}"
        asks = EnrolmentRequest(
            device=name,
            site="plant",
            profile="",
            csr=make_request(name, FileSigner.generate()),
            nonce=os.urandom(24),
            token_id=None if number % 2 else "t-000000000000",
            proof=b"x",
        )
        answer = httpx.post(f"{short.url}/api/v1/enrolments", content=msgspec.json.encode(asks))
        return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(request, range(160)))
    assert set(statuses) <= {202, 403, 429, 503}
    assert statuses.count(429) >= 60
    pending = [one for one in short.client.admissions() if one["state"] == "pending"]
    assert len(pending) <= 5
    agent = enrolled("honest")
    assert _comes_in(agent)
    assert short.client.health()["status"] == "ok"


def test_a_stolen_state_folder_is_worth_its_certificate_only_until_revoked(short, enrolled):
    """What a thief of the files has: it works from anywhere, and ends at once."""
    agent = enrolled("stolen")
    assert _comes_in(agent)
    short.client.revoke_device("stolen")
    assert not _comes_in(agent)
