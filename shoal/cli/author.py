"""`shoal package` and `inspect`, and the root of what authors of releases use.

Nothing here talks to a controller: a release key and what it signs stay on the author's machine
until `shoal release push`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import keys, train
from shoal.cli.making import Key, Out, identity, prepare, progress, write
from shoal.cli.session import AsJson, print_json
from shoal.errors import InvalidInputError, UntrustedError


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(keys.app, name="keys")
    app.add_typer(train.app, name="train")
    app.command("package")(package)
    app.command("inspect")(inspect)


def package(
    description: Annotated[
        Path, typer.Argument(metavar="DESCRIPTION.toml", help="What the release is.")
    ],
    key: Key,
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Package your own .tflite files, described in a TOML, and sign the package."""
    signer = prepare(key, out)

    import msgspec

    from shoal.cli.description import load_description, package_description
    from shoal.cli.package_page import package_lines, page

    described = load_description(description)
    with progress("running the model") as on_rows:
        made, run = package_description(described, description.parent, signer, on_rows)
    document = write(made, out) | {"run_here": run}
    if as_json:
        print_json(document | {"manifest": msgspec.json.decode(made.manifest_bytes)})
        return
    lines = [("package", f"{out}, {document['bytes']:,} bytes")]
    lines += package_lines(made, "made just now")
    checked = ", ".join(run) if run else "nothing, no TFLite runtime is installed"
    typer.echo(page([*lines, ("tried out", checked)]))


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The package, *.shoal, or a model, *.tflite.")
    ],
    key_public: Annotated[
        str | None, typer.Option(help="Verify with this public key: base64, or its file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what stands in a package or a .tflite file; verify a package with --key-public."""
    if file.suffix == ".tflite":
        _inspect_model(file, as_json)
        return
    import msgspec

    from shoal.cli.package_page import package_lines, page
    from shoal.package import read_package, verify_package
    from shoal.signing import KeyVerifier, key_id

    found, size = read_package(file), file.stat().st_size
    signature, verified_by = "NOT verified (give --key-public)", None
    if key_public is not None:
        public = keys.parse_public_key(key_public)
        verified_by = key_id(public)
        try:
            verify_package(found, KeyVerifier([public]))
        except UntrustedError as error:
            raise UntrustedError(
                f"package {file.name}: expected a signature by key {verified_by[:12]}…, got "
                f"{error.sentence}",
                code=error.code,
            ) from error
        signature = f"verified, by key {verified_by}"
    if as_json:
        document = {"package": str(file), "bytes": size, "verified_by": verified_by}
        manifest = msgspec.json.decode(found.manifest_bytes)
        print_json(document | identity(found) | {"manifest": manifest})
        return
    lines = [("package", f"{file}, {size:,} bytes")]
    typer.echo(page([*lines, *package_lines(found, signature)]))


def _inspect_model(file: Path, as_json: bool) -> None:
    from shoal.cli.model_page import model_document, model_lines
    from shoal.cli.package_page import page
    from shoal.tflite.reader import read_model

    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"model {file}: {error.strerror}") from error
    facts = read_model(data, f"model {file}")
    if as_json:
        print_json({"model": str(file), **model_document(facts)})
        return
    typer.echo(page([("model", f"{file}, {facts.file_bytes:,} bytes"), *model_lines(facts)]))
