"""`shoal trust init|show|renew|export|sign|import`: the TUF repository that devices follow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show
from shoal.cli.signing import sign_and_send, sign_file
from shoal.cli.signing_keys import Keys, OutFile, PassphraseFile, Yes, trusted_root
from shoal.errors import InvalidInputError

app = typer.Typer(
    help="The repository that devices follow: who signs, until when.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ProposalFile = Annotated[Path, typer.Argument(metavar="FILE", help="A proposal, from --out.")]


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="The keys, made by `shoal keys init`.")],
    passphrase_file: PassphraseFile = None,
    out: OutFile = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Sign the first root and targets with the keys of a folder, and publish them."""
    from shoal.cli.key_plan import read_plan
    from shoal.cli.trust_page import trust_page
    from shoal.trust.desk import Desk

    plan, keys = read_plan(folder)
    with connect(url) as client:
        desk = Desk(client)
        proposal = desk.propose_first(plan["root"], plan["targets"])
        status = sign_and_send(desk, proposal, keys, passphrase_file, out)
    if status is not None:
        show(status, as_json, trust_page(status))


@app.command("show")
def show_trust(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show roles, keys, thresholds, versions, and what ends soon."""
    from shoal.cli.trust_page import trust_page

    with connect(url) as client:
        status = client.trust()
    show(status, as_json, trust_page(status))


@app.command("renew")
def renew(
    key: Keys,
    passphrase_file: PassphraseFile = None,
    out: OutFile = None,
    root: Annotated[bool, typer.Option("--root", help="Root too, for a year from now.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Sign targets anew, so that they are valid for 90 days from now."""
    from datetime import UTC, datetime

    from shoal.cli.trust_page import trust_page
    from shoal.trust import ceremony
    from shoal.trust.desk import Desk

    with connect(url) as client:
        desk = Desk(client, trusted_root(key))
        roles = {"targets", "root"} if root else {"targets"}
        proposal = ceremony.propose_renewal(desk.fetch_published(), datetime.now(UTC), roles)
        status = sign_and_send(desk, proposal, key, passphrase_file, out)
    if status is not None:
        show(status, as_json, trust_page(status))


@app.command("sign")
def sign(
    file: ProposalFile,
    key: Keys,
    passphrase_file: PassphraseFile = None,
    package: Annotated[
        Path | None, typer.Option(help="The package in your hands: it must be what is signed.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Sign a proposal that another signer or the controller's operator handed on."""
    sign_file(file, key, passphrase_file, package, yes)


@app.command("import")
def import_file(file: ProposalFile, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Publish a proposal that enough keys have signed."""
    from shoal.cli.trust_page import trust_page
    from shoal.trust.proposal import encode_proposal, read_file

    _, proposal = read_file(file)
    with connect(url) as client:
        status = client.publish_trust(encode_proposal(proposal))
    show(status, as_json, trust_page(status))


@app.command("export-root")
def export_root(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Write the newest root, for a signer or a device that shall begin with it."""
    from shoal.trust.desk import Desk

    with connect(url) as client:
        desk = Desk(client)
        desk.fetch_published([])
    try:
        file.write_bytes(desk.root_after())
    except OSError as error:
        raise InvalidInputError(f"{file}: {error.strerror}") from error
    typer.echo(f"{file}: root {msgspec.json.decode(desk.root_after())['signed']['version']}")
