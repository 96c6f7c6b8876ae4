"""The way of every proposal: shown in words, signed here, sent, or written for more signers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from shoal.cli.signing_keys import keep_root, open_keys
from shoal.errors import InvalidInputError, ShoalError

if TYPE_CHECKING:
    from shoal.trust.desk import Desk
    from shoal.trust.metadata import Contents
    from shoal.trust.proposal import Base, Proposal

Document = dict[str, Any]


class SigningAborted(ShoalError):  # noqa: N818 - a decision, no mistake
    """The signer said no."""

    code = "not-signed"


def sign_and_send(
    desk: Desk,
    proposal: Proposal,
    keys: list[Path],
    passphrase_file: Path | None,
    out: Path | None,
) -> Document | None:
    """Sign with the keys at hand; send it when that is enough, else write it. None: written."""
    from shoal.trust import ceremony

    say(desk.contents, proposal)
    for signer in open_keys(keys, passphrase_file):
        ceremony.sign_proposal(desk.contents, proposal, signer)
    missing = ceremony.find_missing(desk.contents, proposal)
    if not missing:
        status = desk.send(proposal)
        keep_root(keys, desk.root_after(proposal))
        return status
    if out is None:
        one = missing[0]
        raise InvalidInputError(
            f"{one.role}: {one.found} of {one.needed} signatures; give more --key, or --out FILE "
            "for the other signers",
            code="under-signed",
        )
    write(out, desk.base, proposal)
    return None


def sign_file(
    file: Path, keys: list[Path], passphrase_file: Path | None, package: Path | None, yes: bool
) -> None:
    """Add signatures to a proposal that somebody handed on, after showing what it does."""
    from shoal.cli.signing_keys import trusted_root
    from shoal.trust import ceremony
    from shoal.trust.proposal import read_file

    base, proposal = read_file(file)
    contents = ceremony.verify_base(base, trusted_root(keys))
    say(contents, proposal)
    if package is not None:
        _compare(contents, proposal, package)
    if not yes and not typer.confirm("Sign this?", err=True):
        raise SigningAborted("nothing was signed")
    for signer in open_keys(keys, passphrase_file):
        ceremony.sign_proposal(contents, proposal, signer)
    write(file, base, proposal)
    if base.roots:
        from shoal.trust.metadata import encode

        keep_root(keys, encode(base.roots[-1]))


def say(contents: Contents | None, proposal: Proposal) -> None:
    """What is signed, in words."""
    from shoal.trust.changes import describe

    for line in describe(contents, proposal):
        typer.echo(f"  {line}", err=True)


def write(file: Path, base: Base, proposal: Proposal) -> None:
    """Write a proposal for other signers, and say what it still needs."""
    from shoal.trust import ceremony
    from shoal.trust.proposal import encode_file

    try:
        file.write_bytes(encode_file(base, proposal))
    except OSError as error:
        raise InvalidInputError(f"proposal file {file}: {error.strerror}") from error
    missing = ceremony.find_missing(base.contents(), proposal)
    if not missing:
        typer.echo(f"{file}: signed by enough keys; next: shoal trust import {file}", err=True)
        return
    needs = {one.role if one.role == "root" else "targets": one for one in missing}
    words = ", ".join(f"{role} {one.found} of {one.needed}" for role, one in needs.items())
    typer.echo(f"{file}: signatures so far: {words}; next: shoal trust sign {file}", err=True)


def _compare(contents: Contents | None, proposal: Proposal, package: Path) -> None:
    """The package that the signer has in hand must be the one release that is added."""
    from shoal.package import read_package
    from shoal.trust.changes import find_changes
    from shoal.trust.desk import target_of_package

    mine = target_of_package(read_package(package))
    added = {one.path: one for one in find_changes(contents, proposal).added}
    if added.get(mine.path) != mine:
        raise InvalidInputError(
            f"package {package.name}: the proposal does not add exactly this package",
            code="other-package",
        )
