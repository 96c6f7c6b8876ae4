"""How commands reach the controller and how they print: options, token file, output."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from shoal.client import Client

DEFAULT_URL = "http://127.0.0.1:8080"
MAX_TOKEN_BYTES = 4096

Url = Annotated[str, typer.Option("--url", envvar="SHOAL_URL", help="Address of the controller.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def connect(url: str) -> Client:
    """A client of the controller at `url`, with the operator's token where there is one."""
    from shoal.client import Client

    return Client(url, read_token())


def read_token() -> str | None:
    """The API token: the file named by SHOAL_TOKEN_FILE, else ~/.config/shoal/token, else none.

    Never an argument: those are seen by every user of the machine.
    """
    named = os.environ.get("SHOAL_TOKEN_FILE")
    path = Path(named) if named else Path("~/.config/shoal/token").expanduser()
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TOKEN_BYTES + 1)
    except FileNotFoundError:
        if named is None:
            return None
        raise InvalidInputError(f"token file {path} (SHOAL_TOKEN_FILE): no such file") from None
    except OSError as error:
        raise InvalidInputError(f"token file {path}: {error.strerror}") from error
    token = text.decode("ascii", "replace").strip()
    if not token or len(text) > MAX_TOKEN_BYTES or not token.isprintable() or not token.isascii():
        raise InvalidInputError(f"token file {path}: holds no token")
    return token


def console() -> Console:
    """Standard output; colours and width follow the terminal."""
    from rich.console import Console

    return Console(highlight=False)


def print_json(document: Any) -> None:
    """Print a document as JSON that other programs read."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


def show(document: Any, as_json: bool, rendered: RenderableType) -> None:
    """Print `document` as JSON, or as it was rendered for people."""
    if as_json:
        print_json(document)
    else:
        console().print(rendered)
