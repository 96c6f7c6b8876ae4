"""`shoal profiles`: hardware profiles, and where each of their facts is from."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli.session import AsJson, print_json

app = typer.Typer(help="Hardware profiles that devices can claim.", no_args_is_help=True)


@app.command("list")
def list_profiles(as_json: AsJson = False) -> None:
    """List the profiles."""
    import msgspec

    from shoal.profiles import load_profile, profile_names

    found = [load_profile(name) for name in profile_names()]
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    width = max(len(one.name) for one in found)
    for one in found:
        typer.echo(
            f"{one.name:<{width}}  {one.arch[0]:<8}{one.cpu_cores:>2} cores {one.memory_mb:>6,} MB"
            f"  {one.title}"
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A profile, as `list` names it.")],
    as_json: AsJson = False,
) -> None:
    """Show one profile with the source of each fact."""
    import msgspec

    from shoal.cli.package_page import page
    from shoal.profiles import load_profile, profile_facts

    profile = load_profile(name)
    if as_json:
        print_json(msgspec.to_builtins(profile) | {"facts": profile_facts(profile)})
        return
    lines = [("profile", f"{profile.name}, {profile.title}")]
    for key, value in msgspec.to_builtins(profile).items():
        if key in ("name", "title", "sources") or value in ([], {}, "", 0):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{one} {version}" for one, version in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        source = profile.sources.get(key)
        lines.append((key, f"{value}  ({source})" if source else str(value)))
    typer.echo(page(lines, 14))
