"""The options that say what a rollout shall do, declared once for all commands that take them.

`takes_plan` gives a command these options, and hands it the specification that they make.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer

Model = Annotated[str, typer.Argument(help="The model's name, or MODEL@ALIAS.")]
Version = Annotated[
    str | None, typer.Argument(help="The release to move to; not with MODEL@ALIAS.")
]
Selector = Annotated[str, typer.Option(help="Which devices: * or e.g. 'site:ulm not tag:lab'.")]
Waves = Annotated[
    list[str] | None,
    typer.Option(
        "--wave",
        help="A wave: 2, 25% (of all so far), site:ulm, or growing: 1x4/500. Repeat. "
        "With +approval, another person approves it first.",
    ),
]
Seconds = Annotated[float | None, typer.Option(min=0)]
ShadowRows = Annotated[
    int | None, typer.Option(min=0, help="Answer so many rows unheard first; 0: none.")
]
ShadowSeconds = Annotated[float | None, typer.Option(min=0, help="The same in seconds.")]
AtOnce = Annotated[int | None, typer.Option(min=1, help="At most so many under way at once.")]
PerSite = Annotated[int | None, typer.Option(min=1, help="At most so many at once at a site.")]
Control = Annotated[
    float | None, typer.Option(min=0, max=0.5, help="Share held back until all waves have passed.")
]
StartAt = Annotated[
    str | None, typer.Option(help="Wait, scheduled, until 2026-11-30T22:00:00+01:00.")
]
Windows = Annotated[
    list[str] | None,
    typer.Option("--window", help="Offer only then: 'sat,sun 22:00-04:00'. Repeat."),
]
TimeZone = Annotated[str | None, typer.Option(help="Of the windows: Europe/Berlin; else UTC.")]
Approvals = Annotated[
    int | None, typer.Option(min=0, max=5, help="So many other people must approve the start.")
]
Attempts = Annotated[
    int | None,
    typer.Option(min=1, max=20, help="Offer it so often to who failed or did not answer."),
]
Priority = Annotated[int | None, typer.Option(min=0, max=100, help="Above that of others.")]
OnConflict = Annotated[
    str | None,
    typer.Option(help="While another moves the model: refuse (the default), queue or supersede."),
]
Continuous = Annotated[
    bool | None, typer.Option("--continuous", help="Devices that come late get it, too.")
]
OnFailure = Annotated[str | None, typer.Option(help="rollback (the default), or pause.")]

_NAMED: dict[str, Any] = {"model": (Model, Parameter.empty), "version": (Version, None)}
_OPTIONAL: dict[str, tuple[Any, str]] = {
    "wave": (Waves, "waves"),
    "soak_seconds": (Seconds, "soak_seconds"),
    "probation_seconds": (Seconds, "probation_seconds"),
    "shadow_rows": (ShadowRows, "shadow_rows"),
    "shadow_seconds": (ShadowSeconds, "shadow_seconds"),
    "max_under_way": (AtOnce, "max_under_way"),
    "max_per_site": (PerSite, "max_under_way_per_site"),
    "control_share": (Control, "control_share"),
    "start_at": (StartAt, "start_at"),
    "window": (Windows, "maintenance_windows"),
    "time_zone": (TimeZone, "time_zone"),
    "approvals": (Approvals, "approvals"),
    "max_attempts": (Attempts, "max_attempts"),
    "priority": (Priority, "priority"),
    "on_conflict": (OnConflict, "on_conflict"),
    "continuous": (Continuous, "continuous"),
    "on_failure": (OnFailure, "on_failure"),
}
"""Option → its type, and the field of the specification."""

_PARAMETERS = [
    *(
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=default)
        for name, (kind, default) in _NAMED.items()
    ),
    Parameter("selector", Parameter.POSITIONAL_OR_KEYWORD, annotation=Selector, default="*"),
    *(
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=None)
        for name, (kind, _) in _OPTIONAL.items()
    ),
]


Command = Callable[..., None]


def takes_plan(*, named: bool = True) -> Callable[[Command], Command]:
    """Decorate a command whose first parameter is the specification.

    `named`: of which model and release, to which devices.
    """
    options = [one for one in _PARAMETERS if named or one.name in _OPTIONAL]

    def decorate(command: Command) -> Command:
        own = [*signature(command, eval_str=True).parameters.values()][1:]

        def wrapped(**given: Any) -> None:
            plan = {one.name: given.pop(one.name) for one in options}
            command(make_specification(plan), **given)

        parameters = [*options, *own]
        wrapped.__doc__ = command.__doc__
        wrapped.__name__ = command.__name__
        wrapped.__annotations__ = {one.name: one.annotation for one in parameters}
        wrapped.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # for typer
        return wrapped

    return decorate


def make_specification(plan: dict[str, Any]) -> dict[str, Any]:
    """What was given on the command line, as the API takes it; what was not is left out. Pure."""
    from shoal.waves import parse_waves

    found = {name: plan[name] for name in (*_NAMED, "selector") if plan.get(name) is not None}
    for name, (_, field) in _OPTIONAL.items():
        value = plan[name]
        if value not in (None, []):
            found[field] = parse_waves(value) if name == "wave" else value
    return found
