"""The command `shoal-agent`. Light: everything heavy is imported by the verb that needs it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from agent.cli.check import check_config, doctor
from shoal import __version__, logs
from shoal.errors import ShoalError

DEFAULT_CONFIG = "/etc/shoal/agent.toml"
MAX_TOKEN_CHARACTERS = 1024


def main() -> None:
    """Run the command; mistakes are one line on standard error and exit code 1."""
    arguments = _parser().parse_args()
    logs.begin()
    try:
        arguments.verb(arguments)
    except ShoalError as error:
        print(f"shoal-agent: {error.sentence}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shoal-agent", description="Runs models on this device and reports on them."
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, verb, words in (
        ("run", _run, "run the service"),
        ("enrol", _enrol, "make this device part of a fleet"),
        ("key", _key, "print this device's public key, for an operator to announce"),
        ("status", _status, "show slots and outbox"),
        ("explain", _explain, "say whether and how a package fits this device"),
        ("outbox", _outbox, "list messages that are not acked"),
        ("predictions", _predictions, "read a table that the sqlite action wrote"),
        ("doctor", doctor, "check everything this agent needs, and say the fix"),
        ("check-config", check_config, "print every setting with its origin, and every mistake"),
    ):
        one = verbs.add_parser(name, help=words, description=words)
        one.set_defaults(verb=verb)
        one.add_argument("--config", type=Path, default=Path(DEFAULT_CONFIG), metavar="FILE")
        if name not in ("run", "enrol"):
            one.add_argument("--json", action="store_true", help="print JSON")
        if name == "enrol":
            _enrolment_options(one)
        if name == "explain":
            one.add_argument("package", type=Path)
            one.add_argument(
                "--profile", metavar="NAME", help="ask of a hardware profile, not of this device"
            )
        if name == "predictions":
            one.add_argument("file", type=Path)
            one.add_argument("--limit", type=int, default=20)
    return parser


def _enrolment_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--token", help="others here can read it; - reads it from standard input")
    how.add_argument("--token-file", metavar="FILE", help="- is standard input")
    how.add_argument("--ask", action="store_true", help="without a token: wait for an operator")
    parser.add_argument(
        "--wait-seconds", type=float, default=86400.0, help="with --ask: for so long at most"
    )


def _config(arguments: argparse.Namespace) -> Any:
    from agent.config import load_config

    return load_config(arguments.config)


def _run(arguments: argparse.Namespace) -> None:
    from agent.app import serve
    from agent.state_files import check_writable

    config = _config(arguments)
    check_writable(config.state_dir)
    asyncio.run(serve(config))


def _enrol(arguments: argparse.Namespace) -> None:
    from agent.enrol import enrol, enrol_by_operator

    config = _config(arguments)
    if arguments.ask:
        answer = enrol_by_operator(
            config,
            config.controller_fingerprint,
            arguments.wait_seconds,
            lambda words: print(words, flush=True),
        )
    else:
        answer = enrol(config, _read_token(arguments))
    print(f"enrolled {answer.device} at {answer.site}, broker {answer.broker_host}")


def _read_token(arguments: argparse.Namespace) -> str:
    """From where it was said to be; never from a place that was not named."""
    if arguments.token not in (None, "-"):
        return str(arguments.token)
    if "-" in (arguments.token, arguments.token_file):
        return sys.stdin.readline(MAX_TOKEN_CHARACTERS)
    if arguments.token_file is not None:
        try:
            with Path(arguments.token_file).open(encoding="ascii") as file:
                return file.read(MAX_TOKEN_CHARACTERS)
        except (OSError, UnicodeDecodeError) as error:
            raise ShoalError(f"token file {arguments.token_file}: {error}") from error
    token = os.environ.get("SHOAL_TOKEN", "")
    if not token:
        raise ShoalError(
            "enrol: no token; give --token-file FILE (- is standard input) or set SHOAL_TOKEN, or "
            "--ask an operator to let this device in"
        )
    return token


def _key(arguments: argparse.Namespace) -> None:
    import base64

    from agent.enrol import load_key
    from shoal.signing import key_id

    config = _config(arguments)
    key = load_key(config).public_key
    found = {
        "device": config.device,
        "public_key": base64.b64encode(key).decode(),
        "fingerprint": key_id(key),
    }
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{found['public_key']}\nfingerprint {found['fingerprint']}")


def _status(arguments: argparse.Namespace) -> None:
    import sqlite_utils

    from agent.state_files import open_database

    config = _config(arguments)
    open_database(config.state_db).close()
    state = sqlite_utils.Database(config.state_db)
    outbox = sqlite_utils.Database(config.outbox_db)
    found = {
        "device": config.device,
        "models": [json.loads(row["document"]) for row in state["slots"].rows],
        "outbox_rows": outbox["messages"].count,
    }
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    print(f"device  {found['device']}\noutbox  {found['outbox_rows']} messages not acked")
    for slots in found["models"]:
        active, candidate = slots["active"], slots["candidate"]
        print(f"model   {slots['model']}: {active['version'] if active else 'nothing active'}")
        if candidate:
            version, stage = candidate["assignment"]["version"], candidate["stage"]
            print(f"        candidate {version}: {stage} {candidate['sentence']}".rstrip())


def _explain(arguments: argparse.Namespace) -> None:
    from agent.explain import explain_lines, explain_package

    if arguments.profile is not None:
        from shoal.profiles import load_profile, profile_facts

        facts = profile_facts(load_profile(arguments.profile))
        device = f"profile {arguments.profile}"
    else:
        from agent.introspect import device_facts, with_free_memory

        config = _config(arguments)
        folder = config.state_dir if config.state_dir.exists() else Path()
        facts = with_free_memory(device_facts(config.profile, folder, config.sensors))
        device = "this device"
    found = explain_package(arguments.package, facts)
    print(json.dumps(found, indent=1) if arguments.json else explain_lines(found, device))
    if not found["fits"]:
        sys.exit(2)


def _outbox(arguments: argparse.Namespace) -> None:
    import sqlite_utils

    from agent.state_files import open_database

    config = _config(arguments)
    open_database(config.outbox_db).close()
    database = sqlite_utils.Database(config.outbox_db)
    rows = list(
        database.query(
            "SELECT id, channel, model, boot_id, seq, created_ms, LENGTH(body) AS bytes"
            " FROM messages ORDER BY class, id LIMIT 1000"
        )
    )
    _print_rows(rows, as_json=arguments.json)


def _predictions(arguments: argparse.Namespace) -> None:
    import sqlite_utils

    if not arguments.file.exists():
        raise ShoalError(f"{arguments.file}: no such file")
    table = sqlite_utils.Database(arguments.file)["predictions"]
    rows = list(table.rows_where(order_by="id desc", limit=arguments.limit))
    _print_rows(rows, as_json=arguments.json)


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        print("nothing there")
        return
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(str(value) for value in row.values()))
