"""The agent's configuration: defaults, limits, and every mistake in one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import ModelBinding, OutboxLimits, load_config
from shoal.errors import InvalidInputError

MINIMAL = """
[device]
id = "gw-1"
site = "jfk"
[controller]
url = "http://localhost:8000/"
"""


@pytest.fixture
def load(tmp_path):
    """Load a configuration given as text."""

    def write(text):
        path = tmp_path / "agent.toml"
        path.write_text(text, encoding="utf-8")
        return load_config(path)

    return write


def _refused(load, text):
    with pytest.raises(InvalidInputError) as caught:
        load(text)
    _, _, problems = caught.value.sentence.partition("agent.toml: ")
    return problems.split("; ")


def test_three_lines_are_enough(load):
    config = load(MINIMAL)
    assert (config.device, config.site, config.profile) == ("gw-1", "jfk", "")
    assert config.controller_url == "http://localhost:8000"
    assert config.state_dir == Path("/var/lib/shoal")
    assert config.state_db == Path("/var/lib/shoal/state.sqlite")
    assert config.outbox_db == Path("/var/lib/shoal/outbox.sqlite")
    assert config.files_dir == Path("/var/lib/shoal/files")
    assert (config.window_seconds, config.health_seconds, config.num_threads) == (60.0, 60.0, 1)
    assert config.outbox == OutboxLimits()
    assert config.models == []


def test_an_address_of_the_controller_holds_nothing_that_a_log_may_not_show(load):
    found = _refused(load, MINIMAL.replace("localhost:8000/", "me:hunter2@host/x?token=abc"))
    expected = "controller.url: expected an address without a login or query, got http://host/x"
    assert found == [expected]
    mirrors = '[updates]\nmirrors = ["http://me:hunter2@cache"]\n'
    expected = "updates.mirrors: expected http(s) addresses without a login or query"
    assert _refused(load, MINIMAL + mirrors) == [expected]


def test_everything_can_be_set(load):
    config = load(
        """
        device = { id = "gw-1", site = "jfk", profile = "pi-4", state_dir = "state" }
        controller.url = "https://fleet"
        report = { window_seconds = 5, health_seconds = 0.2 }
        workers.num_threads = 4
        outbox = { max_bytes = 65536, max_age_seconds = 60, merge_above_rows = 4 }
        [models.pump]
        source = { kind = "csv", path = "a.csv", rate_hz = 1 }
        [[models.pump.actions]]
        kind = "mqtt"
        [models.fan.source]
        kind = "host"
        """
    )
    assert (config.profile, config.state_dir) == ("pi-4", Path("state"))
    assert (config.window_seconds, config.health_seconds, config.num_threads) == (5, 0.2, 4)
    assert config.outbox == OutboxLimits(65536, 60, 4)
    assert config.models == [
        ModelBinding("pump", {"kind": "csv", "path": "a.csv", "rate_hz": 1}, [{"kind": "mqtt"}]),
        ModelBinding("fan", {"kind": "host"}, []),
    ]


def test_all_mistakes_are_reported_together(load):
    found = _refused(
        load,
        """
        colour = "red"
        [device]
        id = "GW 1"
        profile = 4
        colour = "blue"
        [report]
        window_seconds = 0.1
        health_seconds = "often"
        [workers]
        num_threads = true
        [outbox]
        max_bytes = 1
        [models.Pump]
        actions = "log"
        colour = "green"
        """,
    )
    assert sorted(found) == sorted(
        [
            "device.id: 'GW 1' may hold only a-z, 0-9 and '-'",
            "device.site: is missing",
            "device.profile: expected text, got 4",
            "controller.url: is missing",
            "report.window_seconds: 0.1 is not between 0.2 and 3600",
            "report.health_seconds: expected a number, got 'often'",
            "workers.num_threads: expected a number, got True",
            "outbox.max_bytes: 1 is not between 65536 and 1.09951e+12",
            "models.Pump: a model name may hold only a-z, 0-9 and '-'",
            "models.Pump.source: is missing",
            "models.Pump.actions: expected a list of tables",
            "models.Pump.colour: is not known",
            "colour: is not known",
            "device.colour: is not known",
        ]
    )


@pytest.mark.parametrize("key", ["device.id", "device.site", "controller.url"])
def test_an_empty_text_is_not_an_answer(load, key):
    _, _, name = key.partition(".")
    lines = [
        f'{name} = ""' if line.startswith(f"{name} =") else line for line in MINIMAL.splitlines()
    ]
    assert _refused(load, "\n".join(lines)) == [f"{key}: is empty"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e300"])
@pytest.mark.parametrize(
    "key",
    [
        "report.window_seconds",
        "report.health_seconds",
        "workers.num_threads",
        "outbox.max_bytes",
        "outbox.max_age_seconds",
        "outbox.merge_above_rows",
    ],
)
def test_a_number_outside_its_limits_is_named(load, key, value):
    (problem,) = _refused(load, f"{key} = {value}\n{MINIMAL}")
    assert problem.startswith(f"{key}: ")
    assert "is not between" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("models = 3", "models: expected a table per model"),
        ("models = { pump = 3 }", "models.pump.source: is missing"),
        ("models = { pump = { source = { kind = 3 } } }", "models.pump.source.kind: is missing"),
        (
            'models = { pump = { source = { kind = "host" }, actions = [3] } }',
            "models.pump.actions: expected a list of tables",
        ),
        ("report = 3", "report: is not known"),
        ("report = { windows = 3 }", "report.windows: is not known"),
        ("outbox = { max_bytes = { is = 3 } }", "outbox.max_bytes: expected a number"),
    ],
)
def test_a_wrong_shape_is_named(load, text, problem):
    (found,) = _refused(load, f"{text}\n{MINIMAL}")
    assert found.startswith(problem)


@pytest.mark.parametrize("data", [b"[device", b"\xff", b'a = "\xc3"'])
def test_what_is_not_toml_is_refused(tmp_path, data):
    path = tmp_path / "agent.toml"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=r"configuration .*agent\.toml: "):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match=r"none\.toml"):
        load_config(tmp_path / "none.toml")


def test_mistakes_of_sources_and_actions_are_reported_together_with_their_paths(load):
    found = _refused(
        load,
        MINIMAL
        + """
        [models.a.source]
        kind = "csv"
        rate_hz = "fast"
        colour = "red"
        [[models.a.actions]]
        kind = "sqlite"
        max_rows = 1
        [[models.a.actions]]
        kind = "smoke"
        [[models.a.actions]]
        kind = "webhook"
        url = "ftp://host"
        [models.b.source]
        kind = "smoke"
        [models.c.source]
        kind = "tcp"
        [models.d.source]
        kind = "tcp"
        listen = "nowhere"
        [models.e.source]
        kind = "ndjson"
        path = "rows"
        columns = { t = "$.a[x]" }
        overload = "panic"
        """,
    )
    assert sorted(found) == sorted(
        [
            "models.a.source.colour: is not known",
            "models.a.source.path: is missing",
            "models.a.source.rate_hz: expected a number, got 'fast'",
            "models.a.actions[0].path: is missing",
            "models.a.actions[0].max_rows: 1 is not between 100 and 1e+09",
            "models.a.actions[1].kind: expected one of mqtt, sqlite, file, webhook, got 'smoke'",
            "models.a.actions[2].url: expected http:// or https://, got 'ftp://host'",
            "models.b.source.kind: expected one of csv, ndjson, stdin, tcp, unix, mqtt, modbus, "
            "model, http, tensor-file, host, got 'smoke'",
            "models.c.source.listen: expected either listen or connect",
            "models.d.source: address 'nowhere': expected host:port",
            "models.e.source.overload: expected one of newest, oldest, wait, got 'panic'",
        ]
    )


def test_mistakes_between_models_and_http_are_reported_too(load):
    found = _refused(
        load,
        MINIMAL
        + """
        [http]
        inference = "yes"
        timeout_seconds = 0
        [models.a.source]
        kind = "model"
        model = "b"
        [models.b.source]
        kind = "model"
        model = "a"
        [models.c.source]
        kind = "model"
        model = "nobody"
        [models.d.source]
        kind = "http"
        [models.e.source]
        kind = "mqtt"
        topics = { t = "a/#" }
        columns = { t = "value" }
        [models.f.source]
        kind = "modbus"
        host = "plc"
        registers = [
            { feature = "t" },
            { feature = "u", address = 70000, type = "int3" },
            { feature = "v", address = 1, table = "coil", type = "int16" },
        ]
        """,
    )
    assert sorted(found) == sorted(
        [
            "http.inference: expected true or false, got 'yes'",
            "http.timeout_seconds: 0 is not between 0.01 and 600",
            "models.a.source.model: goes round in a circle",
            "models.b.source.model: goes round in a circle",
            "models.c.source.model: no model 'nobody' here",
            "models.d.source.kind: http needs http.listen or http.socket",
            "models.e.source.topics.t: wildcards are for topic, got 'a/#'",
            "models.e.source.columns.t: expected a path that begins with $, got 'value'",
            "models.f.source.registers[0].address: is missing",
            "models.f.source.registers[1].address: 70000 is not between 0 and 65535",
            "models.f.source.registers[1].type: expected one of int16, uint16, int32, uint32, "
            "int64, uint64, float32, float64, bool, got 'int3'",
            "models.f.source.registers[2].type: expected bool, got 'int16'",
        ]
    )


def test_the_local_http_server_is_off_unless_it_has_somewhere_to_listen(load):
    assert not load(MINIMAL).http.enabled
    http = load(MINIMAL + "[http]\nlisten = '127.0.0.1:8090'\n").http
    assert (http.enabled, http.inference, http.max_connections) == (True, True, 32)
    (problem,) = _refused(load, MINIMAL + "[http]\nlisten = '8090'\n")
    assert problem == "http.listen: address '8090': expected host:port"
