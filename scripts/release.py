"""`scripts/release`: build a release of Shoal itself, and verify one before installing it.

    scripts/release build FOLDER --key release.key [--builder ID] [--passphrase-file FILE]
    scripts/release verify FOLDER --key release.key.pub [--commit SHA] [--builder ID]

Exit codes: 0 done, 1 refused with one sentence, 2 wrong command line.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from release_lib.folder import make_release, verify_release
from release_lib.provenance import builder_of, commit_of

from shoal.cli.keys import load_key
from shoal.cli.signing_keys import open_keys, public_key
from shoal.errors import ShoalError
from shoal.signing import KeyVerifier, Signer, key_id

ROOT = Path(__file__).resolve().parent.parent
LOCAL = "urn:shoal:builder:local"


def main() -> None:
    """Run the command."""
    arguments = _parser().parse_args()
    try:
        arguments.verb(arguments)
    except ShoalError as error:
        print(f"release: {error.sentence} [{error.code}]", file=sys.stderr)
        sys.exit(1)


def _build(arguments: argparse.Namespace) -> None:
    signer = _signer(arguments.key, arguments.passphrase_file)
    make_release(arguments.repository, arguments.folder, signer, arguments.builder)
    _verified(arguments.folder, KeyVerifier([signer.public_key]), None, None)
    print(f"signed by {key_id(signer.public_key)}")


def _verify(arguments: argparse.Namespace) -> None:
    verifier = KeyVerifier([public_key(arguments.key)])
    _verified(arguments.folder, verifier, arguments.commit, arguments.builder)


def _verified(folder: Path, verifier: KeyVerifier, commit: str | None, builder: str | None) -> None:
    statement = verify_release(folder, verifier, commit=commit, builder=builder)
    print(
        f"{folder}: {len(statement.subject)} files as signed, "
        f"commit {commit_of(statement)}, built by {builder_of(statement)}"
    )


def _signer(path: Path, passphrase_file: Path | None) -> Signer:
    """A key of `shoal keys init` (encrypted) or of `shoal keys create`."""
    if path.is_file() and path.read_bytes()[:1] == b"{":
        return open_keys([path], passphrase_file)[0]
    return load_key(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/release", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    build = verbs.add_parser("build", help="build HEAD into a new folder, and sign it")
    build.set_defaults(verb=_build)
    build.add_argument("folder", type=Path)
    build.add_argument("--key", type=Path, required=True, help="the release key that signs")
    named = os.environ.get("SHOAL_KEY_PASSPHRASE_FILE")
    build.add_argument("--passphrase-file", type=Path, default=Path(named) if named else None)
    build.add_argument("--builder", default=LOCAL, help=f"who builds, a URI; default {LOCAL}")
    build.add_argument("--repository", type=Path, default=ROOT, help="default: this one")
    verify = verbs.add_parser("verify", help="check every file of a folder, and who signed it")
    verify.set_defaults(verb=_verify)
    verify.add_argument("folder", type=Path)
    verify.add_argument("--key", required=True, help="the public key: base64, or its file")
    verify.add_argument("--commit", help="it must be built from this commit (7 digits or more)")
    verify.add_argument("--builder", help="it must be built by this builder")
    return parser


if __name__ == "__main__":
    main()
