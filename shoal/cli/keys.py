"""`shoal keys create|show`, and how commands take release keys (others: `signing_keys`).

FILE is the private key, FILE.pub the public one; both are 32 bytes in base64, so the ending alone
tells them apart, and a `.pub` is never taken for a private key: anybody could sign with it.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli import key_changes
from shoal.cli.session import AsJson, print_json
from shoal.errors import InvalidInputError

if TYPE_CHECKING:
    from shoal.signing import FileSigner, PublicKey

app = typer.Typer(
    help="Keys: the author's, who signs packages, and those of root and targets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PUBLIC_SUFFIX = ".pub"
PUBLIC_KEY_BYTES = 32
MAX_KEY_FILE_BYTES = 4096

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The private key's file.")]


key_changes.register(app)


@app.command("create")
def create(file: KeyFile, as_json: AsJson = False) -> None:
    """Make a release key. Keep FILE secret; FILE.pub is what the controller is told to trust."""
    from shoal.signing import FileSigner

    public_file = file.with_name(file.name + PUBLIC_SUFFIX)
    _refuse_public(file)
    for path in (file, public_file):
        if path.exists() or path.is_symlink():
            raise InvalidInputError(f"key file {path}: expected a new name, it exists already")
    try:
        signer = FileSigner.load_or_create(file)
        with public_file.open("x", encoding="ascii") as out:
            out.write(_base64(signer.public_key) + "\n")
    except OSError as error:
        raise InvalidInputError(f"key file {file}: {error.strerror}") from error
    _show(signer.public_key, as_json)


@app.command("show")
def show(file: KeyFile, as_json: AsJson = False) -> None:
    """Show the public key and the id of a key; no passphrase is needed."""
    if _is_encrypted(file):
        from shoal.trust.key_files import read_public

        _show(read_public(file), as_json)
    else:
        _show(load_key(file).public_key, as_json)


def load_key(file: Path) -> FileSigner:
    """The private key in a file."""
    from shoal.signing import FileSigner

    _refuse_public(file)
    if not file.is_file():
        raise InvalidInputError(
            f"key file {file}: expected a key made by `shoal keys create`, found no such file"
        )
    return FileSigner.load(file)


def parse_public_key(text: str) -> PublicKey:
    """A public key from base64, or from the file of that name."""
    try:
        if Path(text).is_file():
            with Path(text).open("rb") as file:
                raw = base64.b64decode(file.read(MAX_KEY_FILE_BYTES).strip(), validate=True)
        else:
            raw = base64.b64decode(text, validate=True)
    except (OSError, ValueError):
        raw = b""
    if len(raw) != PUBLIC_KEY_BYTES:
        raise InvalidInputError(
            f"public key {text[:80]!r}: expected {PUBLIC_KEY_BYTES} bytes in base64, or a file "
            f"that holds them, got {f'{len(raw)} bytes' if raw else 'neither'}"
        )
    return raw


def _refuse_public(file: Path) -> None:
    if file.suffix == PUBLIC_SUFFIX:
        raise InvalidInputError(
            f"key file {file}: expected the private key, got a name for a public one "
            f"(*{PUBLIC_SUFFIX})"
        )


def _is_encrypted(file: Path) -> bool:
    try:
        with file.open("rb") as one:
            return one.read(1) == b"{"
    except OSError:
        return False


def _show(key: PublicKey, as_json: bool) -> None:
    from shoal.signing import key_id

    public = _base64(key)
    if as_json:
        print_json({"public_key": public, "key_id": key_id(key)})
    else:
        typer.echo(f"public key  {public}\nkey id      {key_id(key)}")


def _base64(key: PublicKey) -> str:
    return base64.b64encode(key).decode("ascii")
