"""No secret that a fleet uses stands in a log, an audit row, a database or a command line.

One controller, one broker and one device, everything at debug level, used as people use them: by
the command, the pages and the API, and also with mistakes, which are what logs are written for.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from local_fleet.agents import Agent, AgentSpec
from local_fleet.fleet import LocalFleet
from local_fleet.processes import LocalFleetError
from local_fleet.secret_watch import CommandLines, Secrets

from controller.secret import derive
from shoal.package import write_package
from shoal.signing import FileSigner
from shoal.trust.key_files import decrypt_key

SHOAL = str(Path(sys.executable).with_name("shoal"))
WAIT_SECONDS = 120.0
DEVICE = "careful"
# Files that hold secrets, since somebody must. All others, and every log, hold none.
KEPT = (
    "controller/keys/*",
    "controller/broker/broker.key",
    "controller/logins/*.pem",
    "controller/operator.token",
    "devices/*/state/device.key",
    "devices/*/state/identity.pem",
    "devices/*/token",
    "devices/*/agent.toml",  # an integrator may write an address with a login there
    "keys/*",
    "keys/signing/*",
    "held/*",
)


class Use:
    """One fleet in use, and every secret that was in it."""

    def __init__(self, fleet: LocalFleet) -> None:
        self.fleet = fleet
        self.held = fleet.folder / "held"
        self.held.mkdir()
        self.known = Secrets()
        self.printed: dict[str, bytes] = {}

    def invent(self, what: str) -> str:
        """A secret of our own choice."""
        made = f"Zx{secrets.token_hex(12)}"
        self.known.text(what, made)
        return made

    def hold(self, what: str) -> Path:
        """A secret in a file of its own."""
        path = self.held / what.replace(" ", "-")
        path.write_text(self.invent(what) + "\n")
        path.chmod(0o600)
        return path

    def shoal(self, *words: str, stdin: str = "", tells: str = "", code: int = 0) -> str:
        """Run the command; its output is searched too, unless it `tells` a secret for once."""
        environment = os.environ | {
            "SHOAL_URL": self.fleet.url,
            "SHOAL_TOKEN_FILE": str(self.fleet.controller.token_file),
            "SHOAL_KEY_PASSPHRASE_FILE": str(self.held / "passphrase-of-keys"),
        }
        done = subprocess.run(
            [SHOAL, *words], input=stdin, env=environment, capture_output=True, text=True,
            timeout=WAIT_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        name = f"output of shoal {' '.join(words[:2])}"
        self.printed[name] = self.printed.get(name, b"") + done.stderr.encode()
        if tells:
            self.known.text(tells, done.stdout.strip())
        else:
            self.printed[name] += done.stdout.encode()
        return done.stdout.strip()

    def keys(self) -> None:
        """Root and targets keys behind a passphrase, and the first root, by the command."""
        self.hold("passphrase of keys")
        folder = self.fleet.folder / "keys"
        self.shoal("keys", "init", str(folder / "signing"))
        self.shoal("trust", "init", str(folder / "signing"))
        text = (self.held / "passphrase-of-keys").read_text().strip()
        for path in (folder / "signing").glob("*.key"):
            self.known.key(path.name, decrypt_key(path, text))
        self.known.key("release key", self.fleet.signer)

    def people(self) -> None:
        """A user, a wrong password, a session, a sign-in link, API tokens and a wrong one."""
        password = self.invent("password")
        self.shoal("user", "add", "ann", "--role", "operator", stdin=password + "\n")
        self.shoal("token", "create", "ci", "--role", "viewer", tells="API token")
        self.known.text("operator's token", self.fleet.controller.operator_token())
        wrong = self.invent("wrong password")
        with httpx.Client(base_url=self.fleet.url, timeout=WAIT_SECONDS) as browser:
            for typed, status in ((wrong, 401), (password, 303)):
                page = browser.get("/sign-in").text
                csrf = re.search(r'name="csrf" value="([^"]+)"', page)[1]
                self.known.text(f"token of a form before {status}", csrf)
                answer = browser.post(
                    "/sign-in", data={"name": "ann", "password": typed, "csrf": csrf}
                )
                assert answer.status_code == status, answer.text
            for name, value in browser.cookies.items():
                self.known.text(f"cookie {name}", value)
            bearer = {"authorization": f"Bearer {self.invent('wrong API token')}"}
            assert browser.get("/api/v1/devices", headers=bearer).status_code == 401
        link = self.fleet.sign_in_url()
        self.known.text("sign-in link", link.rpartition("/")[2])
        for _ in range(2):  # the second time it is used up
            httpx.get(link, timeout=WAIT_SECONDS)

    def device(self, package: Path, rows: Path) -> None:
        """Enrol by a token, once wrongly, and run a model whose webhook is not there."""
        token = self.shoal("enrolment-token", "create", "--device", DEVICE, tells="enrolment token")
        self.known.text("secret of the enrolment token", token.partition(".")[2])
        login, query = self.invent("login in an address"), self.invent("token in an address")
        hook = {
            "kind": "webhook",
            "url": f"http://me:{login}@127.0.0.1:9/hook?token={query}",
            "token_file": str(self.hold("webhook token")),
            "max_tries": 1,
        }
        source = {"kind": "csv", "path": str(rows), "rate_hz": 50, "loop": True}
        models = {"secretive": {"source": source, "actions": [hook]}}
        spec = AgentSpec(DEVICE, "plant", models=models, health_seconds=1.0)
        refused = Agent(spec, self.fleet.folder / "devices" / DEVICE)
        refused.prepare(self.fleet.url, f"{token.partition('.')[0]}.{self.invent('wrong token')}")
        with pytest.raises(LocalFleetError) as error:
            refused.enrol()
        self.printed["refused enrolment"] = str(error.value).encode()
        self.fleet.enrol([spec])
        self.known.text("second enrolment token", self._read_token())
        self.shoal("release", "push", str(package), "--targets-key", self._targets_key())
        self.fleet.start_agents()
        client = self.fleet.client
        created = client.create_rollout(
            {
                "model": "secretive",
                "version": "1.0.0",
                "selector": f"device:{DEVICE}",
                "waves": [{"name": "all", "share": 1.0}],
                "soak_seconds": 0.5,
                "probation_seconds": 1.0,
            }
        )
        ended = client.wait_for_rollout(created["rollout"], timeout=WAIT_SECONDS)
        assert ended["state"] == "succeeded", ended["reason"]
        log = self.fleet.logs / f"{DEVICE}.log"
        self.fleet.wait_for(
            lambda: b"/hook" in log.read_bytes() or None, WAIT_SECONDS, "the webhook has failed"
        )

    def collect(self) -> None:
        """What programs made by themselves: keys, and passwords of a plain broker."""
        folder = self.fleet.controller.folder
        for path in [*(folder / "keys").glob("*.key"), *(folder / "logins").glob("*.pem")]:
            self._private(path)
        self._private(folder / "broker" / "broker.key")
        for name in ("device.key", "identity.pem"):
            self._private(self.fleet.folder / "devices" / DEVICE / "state" / name)
        secret = base64.b64decode((folder / "keys" / "broker.secret").read_bytes())
        self.known.raw("broker's secret", secret)
        for account in ("controller_ingest", "controller_director"):
            self.known.text(f"password of {account}", derive(secret, f"controller|{account}"))

    def _private(self, path: Path) -> None:
        data = path.read_bytes()
        if data.startswith(b"-----"):
            self.known.pem(str(path), data)
        else:
            self.known.key(str(path), FileSigner.load(path))

    def _targets_key(self) -> str:
        return str(self.fleet.folder / "keys" / "signing" / "targets-1.key")

    def _read_token(self) -> str:
        return (self.fleet.folder / "devices" / DEVICE / "token").read_text().strip()


@pytest.fixture
def used(tmp_path, monkeypatch, make_echo_package, write_numbers):
    """A fleet that was used and has ended, with the command lines that it had."""
    monkeypatch.setenv("SHOAL_LOG_LEVEL", "debug")
    folder = tmp_path / "fleet"
    with CommandLines() as lines, LocalFleet(folder, broker="mosquitto") as fleet:
        fleet.start_controller(with_root=False)
        use = Use(fleet)
        use.keys()
        use.people()
        package = tmp_path / "secretive.shoal"
        write_package(make_echo_package("secretive", fleet.signer), package)
        use.device(package, write_numbers(500))
        use.collect()
        events = fleet.client.device_events(DEVICE, limit=1000)
        use.printed["events of the device"] = json.dumps(events).encode()
        use.printed["log of the device, from afar"] = use.shoal("device", "logs", DEVICE).encode()
        use.printed["audit log"] = use.shoal("audit", "list", "--all", "--json").encode()
    return use, lines.seen


def test_no_secret_stands_in_a_log_an_audit_row_a_database_or_a_command_line(used):
    use, command_lines = used
    folder = use.fleet.folder
    kept = {path for pattern in KEPT for path in folder.glob(pattern) if path.is_file()}
    searched = [path for path in folder.rglob("*") if path.is_file() and path not in kept]

    names = {path.name for path in searched}
    assert {
        "controller.log",
        f"{DEVICE}.log",
        "broker.log",
        "shoal.sqlite",
        "outbox.sqlite",
    } <= names
    assert any(b"shoal-controller" in one and b"serve" in one for one in command_lines)
    assert any(b"mosquitto" in one for one in command_lines)
    assert any(b"shoal-agent" in one and b"enrol" in one for one in command_lines)
    assert b" DEBUG " in (folder / "logs" / "controller.log").read_bytes()
    assert b" DEBUG " in (folder / "logs" / f"{DEVICE}.log").read_bytes()
    assert len(use.known) >= 25

    # what is searched for is what stands in the files that keep it
    assert use.known.found_in([folder / "controller" / "operator.token"])
    assert use.known.found_in([folder / "devices" / DEVICE / "state" / "identity.pem"])

    assert use.known.found_in(searched) == []
    assert {
        name: found for name, data in use.printed.items() if (found := use.known.within(data))
    } == {}
    assert [(one, found) for one in command_lines if (found := use.known.within(one))] == []
    for path in kept:
        if path.suffix not in (".pub", ".toml", ".pem", ".json"):
            assert path.stat().st_mode & 0o077 == 0, path
