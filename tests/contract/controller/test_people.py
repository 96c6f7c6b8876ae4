"""People at a real controller: the command adds a user and a token, and verifies the audit log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.client import ApiError, Client
from shoal.signing import FileSigner

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from local_fleet import processes
from local_fleet.controller import Controller

pytestmark = pytest.mark.contract

SHOAL = str(Path(sys.executable).with_name("shoal"))
PASSWORD = "a horse, a battery"


@pytest.fixture
def controller(tmp_path):
    chosen = Controller.choose(tmp_path / "controller", "nats", None)
    chosen.init(FileSigner.generate().public_key)
    child = chosen.start(tmp_path)
    try:
        with Client(chosen.url) as client:
            chosen.wait_ready(child, client)
        yield chosen
    finally:
        processes.stop([child])


def test_the_command_manages_people_and_no_secret_reaches_the_log(controller, tmp_path):
    def shoal(*words: str, stdin: str = "", code: int = 0) -> str:
        environment = os.environ | {
            "SHOAL_URL": controller.url,
            "SHOAL_TOKEN_FILE": str(controller.token_file),
        }
        done = subprocess.run(
            [SHOAL, *words], input=stdin, env=environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout

    shoal("user", "add", "ann", "--role", "operator", stdin=PASSWORD + "\n")
    token = shoal("token", "create", "ci", "--role", "viewer").strip()
    with Client(controller.url, token) as ci:
        assert ci.fleet()["total"] == 0
        with pytest.raises(ApiError, match="this needs the role operator"):
            ci.create_enrolment_token()
    made = json.loads(shoal("token", "list", "--json"))
    shoal("token", "revoke", next(one["token_id"] for one in made if one["name"] == "ci"))
    with Client(controller.url, token) as ci, pytest.raises(ApiError, match="revoked"):
        ci.fleet()

    assert "whole: " in shoal("audit", "verify")
    export = tmp_path / "audit.json"
    export.write_text(shoal("audit", "list", "--all", "--json"))
    rows = json.loads(export.read_text())
    assert ("operator", "user.add") in [(one["actor"], one["action"]) for one in rows]
    rows[-2]["actor"] = "eve"
    export.write_text(json.dumps(rows))
    assert f"broken at row {rows[-2]['id']}" in shoal("audit", "verify", str(export), code=1)

    for log in tmp_path.rglob("*.log"):
        assert PASSWORD not in log.read_text(errors="replace")
        assert token not in log.read_text(errors="replace")
