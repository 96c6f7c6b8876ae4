"""`shoal user add|list|role|password|disable|enable`: people who sign in with a password.

A password is asked for, or the first line of standard input; never an argument, which every user
of the machine could read.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show
from shoal.errors import InvalidInputError

app = typer.Typer(
    help="Users: people who sign in to the dashboard with a password.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MAX_LINE = 4096
ROLES = "viewer, operator, releaser or admin"

Name = Annotated[str, typer.Argument(help="The user's name.")]


def read_password() -> str:
    """Ask twice at a terminal; else the first line of standard input."""
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    line = sys.stdin.readline(MAX_LINE + 1).rstrip("\r\n")
    if not line or len(line) > MAX_LINE:
        raise InvalidInputError("password: expected it as the first line of standard input")
    return line


@app.command("add")
def add(
    name: Name,
    role: Annotated[str, typer.Option(help=ROLES)] = "viewer",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Add a user; the password is asked for, or read from standard input."""
    from shoal.cli.people_tables import user_table

    password = read_password()
    with connect(url) as client:
        document = client.add_user(name, role, password)
    show(document, as_json, user_table([document]))


@app.command("list")
def list_users(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List users with their roles."""
    from shoal.cli.people_tables import user_table

    with connect(url) as client:
        users = client.users()
    show(users, as_json, user_table(users))


@app.command("role")
def set_role(
    name: Name,
    role: Annotated[str, typer.Argument(help=ROLES)],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Give a user another role."""
    _change(name, url, as_json, role=role)


@app.command("password")
def set_password(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Set a new password, asked for or read from standard input; signs the user out everywhere."""
    _change(name, url, as_json, password=read_password())


@app.command("disable")
def disable(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Disable a user: signed out everywhere, and every token that this user made stops."""
    _change(name, url, as_json, disabled=True)


@app.command("enable")
def enable(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Enable a disabled user again."""
    _change(name, url, as_json, disabled=False)


def _change(name: str, url: str, as_json: bool, **changes: str | bool) -> None:
    from shoal.cli.people_tables import user_table

    with connect(url) as client:
        document = client.change_user(name, **changes)
    show(document, as_json, user_table([document]))
