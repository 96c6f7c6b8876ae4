"""How commands take the offline keys: files, passphrases, and the root that a signer trusts.

A passphrase is never an argument: it is asked for, or read from the file that `--passphrase-file`
or SHOAL_KEY_PASSPHRASE_FILE names. `root.json` beside the keys is the root that this signer
trusts; it moves on only along the chain of roots.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.errors import InvalidInputError

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root

    from shoal.signing import FileSigner, PublicKey

ROOT_FILE = "root.json"
MAX_PASSPHRASE_BYTES = 1024

Keys = Annotated[
    list[Path], typer.Option("--key", help="A key that signs, made by `shoal keys init`; again.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="SHOAL_KEY_PASSPHRASE_FILE",
        help="Holds the passphrase of the keys; else it is asked for.",
    ),
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", help="Where to write it for other signers, if it needs more of them."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Sign without asking.")]


def open_keys(files: list[Path], passphrase_file: Path | None) -> list[FileSigner]:
    """Open encrypted keys, asking for the passphrase of each unless a file holds it."""
    from shoal.trust.key_files import decrypt_key, read_public

    signers = []
    for path in files:
        read_public(path)  # what is no key file is refused before anybody types
        signers.append(decrypt_key(path, passphrase(passphrase_file, f"Passphrase of {path}")))
    return signers


def passphrase(file: Path | None, prompt: str, *, confirm: bool = False) -> str:
    """The passphrase: from a file, or typed."""
    if file is None:
        typed: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
        return typed
    try:
        with file.open("rb") as one:
            data = one.read(MAX_PASSPHRASE_BYTES + 1)
        text = data.decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"passphrase file {file}: {error}") from error
    if not text or len(data) > MAX_PASSPHRASE_BYTES:
        raise InvalidInputError(f"passphrase file {file}: holds no passphrase")
    return text


def public_key(text: str) -> PublicKey:
    """A public key: an encrypted key's file, a `.pub` file, or base64."""
    from shoal.cli.keys import PUBLIC_SUFFIX, parse_public_key
    from shoal.trust.key_files import read_public

    path = Path(text)
    if path.is_file() and path.suffix != PUBLIC_SUFFIX:
        return read_public(path)
    return parse_public_key(text)


def trusted_root(files: list[Path]) -> Metadata[Root] | None:
    """The root beside the first key, if there is one."""
    from tuf.api.metadata import Root

    from shoal.trust.metadata import decode

    for path in files:
        beside = path.parent / ROOT_FILE
        if beside.is_file():
            return decode(beside.read_bytes(), Root, "root")
    return None


def keep_root(files: list[Path], data: bytes) -> None:
    """Trust this root from now on; it has been followed from the one before."""
    for folder in {path.parent for path in files}:
        path = folder / ROOT_FILE
        if path.is_file() and path.read_bytes() == data:
            continue
        if not path.exists():
            typer.echo(f"{path}: trusting the controller's root from now on", err=True)
        temporary = path.with_name(f".{ROOT_FILE}.part")
        temporary.write_bytes(data)
        temporary.replace(path)
