"""The command `shoal-controller`: make a controller, run it, tell it whom to trust."""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
from dataclasses import replace
from pathlib import Path

from shoal import __version__, logs
from shoal.errors import InvalidInputError, ShoalError

DEFAULT_CONFIG = "/etc/shoal/controller.toml"


def main() -> None:
    """Run the command; mistakes are one line on standard error and exit code 1."""
    arguments = _parser().parse_args()
    logs.begin()
    try:
        arguments.verb(arguments)
    except ShoalError as error:
        print(f"shoal-controller: {error.sentence}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shoal-controller", description="Signs, rolls out and watches models on a fleet."
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, verb, words in (
        ("init", _init, "make database, keys and the operator's token; safe to repeat"),
        ("serve", _serve, "run the controller until SIGTERM"),
        ("trust-release-key", _trust, "believe packages that this public key signed"),
        ("new-key", _new_key, "make another online key, for shoal keys rotate"),
        ("token", _token, "make an API token for a person or a program"),
        ("broker-config", _broker_config, "write the files for a mosquitto of your own"),
    ):
        one = verbs.add_parser(name, help=words, description=words)
        one.set_defaults(verb=verb)
        one.add_argument("--config", type=Path, default=Path(DEFAULT_CONFIG), metavar="FILE")
        if name == "trust-release-key":
            one.add_argument("key", help="base64, or a file that holds it (*.pub)")
        if name == "new-key":
            one.add_argument("role", help="snapshot, timestamp or director")
        if name == "token":
            one.add_argument("action", choices=("create",))
            one.add_argument("name", help="whose token it is; stands in the audit log")
            one.add_argument("--role", default="operator", help="viewer, operator (the default), …")
        if name == "broker-config":
            one.add_argument("folder", type=Path, help="where to write them")
            one.add_argument("--certificate", type=Path, help="PEM, with --key; else we make it")
            one.add_argument("--key", type=Path)
            one.add_argument("--port", type=int, help="for devices")
            one.add_argument("--listen", default="0.0.0.0", help="for devices")  # noqa: S104
            one.add_argument("--controller-listen", default="127.0.0.1", metavar="HOST")
    return parser


def _init(arguments: argparse.Namespace) -> None:
    from controller.config import load_settings
    from controller.setup import initialise
    from shoal.signing import FileSigner, key_id

    settings = load_settings(arguments.config)
    made = initialise(settings)
    print(f"controller in {settings.data_dir}: " + (", ".join(made) or "everything was there"))
    print(f"the operator's token is in {settings.token_file}")
    fingerprint = key_id(FileSigner.load(settings.director_key).public_key)
    print(f"the controller's fingerprint is {fingerprint}")


def _serve(arguments: argparse.Namespace) -> None:
    from controller.config import load_settings
    from controller.serve import serve

    asyncio.run(serve(load_settings(arguments.config)))


def _trust(arguments: argparse.Namespace) -> None:
    from controller.config import load_settings
    from controller.setup import trust_release_key
    from shoal.signing import key_id

    path = Path(arguments.key)
    try:
        text = path.read_text(encoding="ascii") if path.is_file() else arguments.key
        key = base64.b64decode(text.strip(), validate=True)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"release key {arguments.key[:80]!r}: {error}") from error
    changed = trust_release_key(load_settings(arguments.config), key)
    print(f"release key {key_id(key)[:16]}… is {'now' if changed else 'already'} trusted")


def _new_key(arguments: argparse.Namespace) -> None:
    from controller.config import load_settings
    from controller.setup import add_online_key
    from shoal.signing import key_id

    key = add_online_key(load_settings(arguments.config), arguments.role)
    print(f"{arguments.role} key {key_id(key)[:16]}… made; it signs once it is published:")
    print(f"  shoal keys rotate {arguments.role} --key …")


def _token(arguments: argparse.Namespace) -> None:
    from controller.config import load_settings
    from controller.people.tokens import make_secret
    from controller.setup import add_api_token

    token = make_secret()
    add_api_token(load_settings(arguments.config), arguments.name, arguments.role, token)
    print(token)


def _broker_config(arguments: argparse.Namespace) -> None:
    from controller.broker import BrokerSettings, mosquitto
    from controller.broker.settings import TlsFiles
    from controller.config import load_settings
    from controller.setup import write_broker_files

    if (arguments.certificate is None) != (arguments.key is None):
        raise InvalidInputError("broker-config: --certificate and --key go together")
    settings = load_settings(arguments.config)
    if not settings.broker.controller_port:
        raise InvalidInputError(
            "broker-config: broker.controller_port must name the port of the controller's own "
            "listener, for example 8884"
        )
    folder = arguments.folder.resolve()
    tls = TlsFiles.within(folder)
    if arguments.key is not None:
        tls = replace(tls, certificate=arguments.certificate.resolve(), key=arguments.key.resolve())
    port = arguments.port or settings.broker.port
    broker = BrokerSettings(
        folder=folder,
        host=arguments.listen,
        port=port,
        controller_host=arguments.controller_listen,
        controller_port=settings.broker.controller_port,
        tls=tls,
        probe=False,
    )
    own = arguments.key is None
    for path in write_broker_files(settings, folder, mosquitto.conf(broker), own_pair=own):
        print(path)


if __name__ == "__main__":
    main()
