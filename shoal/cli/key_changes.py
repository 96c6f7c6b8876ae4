"""`shoal keys init|rotate|revoke`: who signs for the repository, and who does no longer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, print_json, show
from shoal.cli.signing_keys import (
    Keys,
    OutFile,
    PassphraseFile,
    passphrase,
    public_key,
    trusted_root,
)
from shoal.errors import InvalidInputError

if TYPE_CHECKING:
    from shoal.signing import PublicKey
    from shoal.trust.desk import Desk
    from shoal.trust.metadata import Contents, RoleKeys
    from shoal.trust.proposal import Proposal

MAX_KEYS = 16
ROLE_WORDS = "root, targets, snapshot, timestamp or director"

Role = Annotated[str, typer.Argument(help=ROLE_WORDS)]
Count = Annotated[int, typer.Option(min=0, max=MAX_KEYS)]
Threshold = Annotated[int, typer.Option(min=1, max=MAX_KEYS)]
Publics = Annotated[list[str] | None, typer.Option(help="Public key of another signer; again.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `shoal keys`."""
    app.command("init")(init)
    app.command("rotate")(rotate)
    app.command("revoke")(revoke)


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder; keep it off the controller.")],
    root_keys: Count = 1,
    root_threshold: Threshold = 1,
    root_public: Publics = None,
    targets_keys: Count = 1,
    targets_threshold: Threshold = 1,
    targets_public: Publics = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make root and targets keys in encrypted files; next: shoal trust init FOLDER."""
    from shoal.cli.key_plan import write_plan
    from shoal.trust.metadata import RoleKeys

    wanted = {"root": (root_keys, root_public), "targets": (targets_keys, targets_public)}
    others = {role: [public_key(one) for one in more or []] for role, (_, more) in wanted.items()}
    for role, threshold in (("root", root_threshold), ("targets", targets_threshold)):
        count = wanted[role][0] + len(others[role])
        if threshold > max(count, 1):
            raise InvalidInputError(
                f"--{role}-threshold {threshold}: there are {count} {role} keys",
                code="bad-threshold",
            )
    words = passphrase(passphrase_file, "Passphrase of the new keys", confirm=True)
    made = {
        role: [_make(folder / f"{role}-{n}.key", words) for n in range(1, count + 1)]
        for role, (count, _) in wanted.items()
    }
    root, targets = ((*made[role], *others[role]) for role in ("root", "targets"))
    plan = None  # keys of one role only are for the folder of whoever collects them
    if root and targets:
        plan = write_plan(
            folder, RoleKeys(root, root_threshold), RoleKeys(targets, targets_threshold)
        )
    _say_made(folder, plan, as_json)


def rotate(
    role: Role,
    key: Keys,
    new: Annotated[
        str | None, typer.Option(help="The new key: its file, its .pub, or base64.")
    ] = None,
    old: Annotated[
        str | None, typer.Option(help="The key that it replaces: its file, .pub, base64 or id.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    out: OutFile = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Replace a key. Online keys are made by `shoal-controller new-key ROLE` first."""
    with connect(url) as client:
        from shoal.trust.desk import Desk

        desk = Desk(client, trusted_root(key))
        contents = desk.fetch_published()
        proposal = _propose_rotation(desk, contents, role, new, old)
        _finish(desk, proposal, key, passphrase_file, out, as_json)


def revoke(
    role: Role,
    gone: Annotated[str, typer.Argument(metavar="KEY", help="Its id, file, .pub or base64.")],
    key: Keys,
    threshold: Annotated[
        int | None, typer.Option(min=1, max=MAX_KEYS, help="How many must sign from then on.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    out: OutFile = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Take a key out: what it signs is worth nothing any more."""
    from shoal.trust.desk import Desk

    with connect(url) as client:
        desk = Desk(client, trusted_root(key))
        contents = desk.fetch_published()
        keys = _keys_of(desk, contents, role)
        left = tuple(one for one in keys.keys if one != _find(gone, keys.keys))
        most = threshold or min(keys.threshold, max(len(left), 1))
        proposal = _propose(desk, contents, role, left, most)
        _finish(desk, proposal, key, passphrase_file, out, as_json)


def _propose_rotation(
    desk: Desk, contents: Contents, role: str, new: str | None, old: str | None
) -> Proposal:
    keys = _keys_of(desk, contents, role)
    if new is not None:
        coming = public_key(new)
    else:
        held = desk.online_keys().get(role, [])
        fresh = [one for one in held if one not in keys.keys]
        if not fresh:
            raise InvalidInputError(
                f"rotate {role}: expected --new KEY"
                + (f", or a key by shoal-controller new-key {role}" if held else ""),
                code="no-new-key",
            )
        coming = fresh[-1]
    # A director's old key stays until devices know the new one: `revoke` takes it out.
    leaving = None
    if role != "director":
        if old is None and len(keys.keys) > 1:
            raise InvalidInputError(f"rotate {role}: expected --old KEY, there are several")
        leaving = _find(old, keys.keys) if old else keys.keys[0]
    left = tuple(one for one in keys.keys if one != leaving)
    return _propose(desk, contents, role, (*left, coming), keys.threshold)


def _propose(
    desk: Desk, contents: Contents, role: str, keys: tuple[PublicKey, ...], threshold: int
) -> Proposal:
    from datetime import UTC, datetime

    import msgspec

    from shoal.trust import ceremony
    from shoal.trust.metadata import RoleKeys

    now = datetime.now(UTC)
    if role == "director":
        RoleKeys(keys, threshold)
        changed = msgspec.structs.replace(desk.director(), keys=list(keys))
        return ceremony.propose_keys(contents, now, director=changed)
    return ceremony.propose_keys(contents, now, {role: RoleKeys(keys, threshold)})


def _keys_of(desk: Desk, contents: Contents, role: str) -> RoleKeys:
    from shoal.trust.metadata import RoleKeys, role_keys
    from shoal.trust.roles import DIRECTOR, ROLES

    if role == DIRECTOR:
        return RoleKeys(tuple(desk.director().keys))
    if role not in ROLES:
        raise InvalidInputError(f"role {role[:40]!r}: expected {ROLE_WORDS}")
    return role_keys(contents.root.signed, role)


def _find(text: str, keys: tuple[PublicKey, ...]) -> PublicKey:
    """The key that a person means, by the beginning of its id or by itself."""
    from shoal.signing import key_id

    by_id = [one for one in keys if len(text) >= 8 and key_id(one).startswith(text)]
    found = by_id or [one for one in keys if one == public_key(text)]
    if len(found) != 1:
        names = ", ".join(key_id(one)[:12] for one in keys)
        raise InvalidInputError(f"key {text[:80]!r}: is none of {names}", code="unknown-key")
    return found[0]


def _finish(
    desk: Desk,
    proposal: Proposal,
    keys: list[Path],
    passphrase_file: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from shoal.cli.signing import sign_and_send
    from shoal.cli.trust_page import trust_page

    status = sign_and_send(desk, proposal, keys, passphrase_file, out)
    if status is not None:
        show(status, as_json, trust_page(status))


def _make(path: Path, words: str) -> PublicKey:
    import base64

    from shoal.cli.keys import PUBLIC_SUFFIX
    from shoal.signing import FileSigner
    from shoal.trust.key_files import encrypt_key, write_new

    signer = FileSigner.generate()
    write_new(path, encrypt_key(signer, words))
    public = path.with_name(path.name + PUBLIC_SUFFIX)
    public.write_text(base64.b64encode(signer.public_key).decode() + "\n", encoding="ascii")
    return signer.public_key


def _say_made(folder: Path, plan: Path | None, as_json: bool) -> None:
    from shoal.signing import key_id
    from shoal.trust.key_files import read_public

    found = {path.name: key_id(read_public(path)) for path in sorted(folder.glob("*.key"))}
    if as_json:
        print_json({"keys": found, "signers": str(plan) if plan else None})
        return
    for name, one in found.items():
        typer.echo(f"{folder / name}  {one[:12]}…")
    typer.echo(
        f"next: shoal trust init {folder}"
        if plan
        else f"next: give {folder}/*.pub to who makes the first root (--targets-public, …)"
    )
