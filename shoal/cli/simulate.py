"""`shoal simulate`: rehearse a rollout on a simulated fleet, before any device is touched."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli import exits
from shoal.cli.plan_options import takes_plan
from shoal.cli.session import AsJson, console
from shoal.errors import InvalidInputError, ShoalError

Document = dict[str, Any]
SIMULATORS = "shoal.simulators"

Plan = Annotated[
    Path | None,
    typer.Option(help="A rollout's specification as JSON; options of the command line go before."),
]
Devices = Annotated[int, typer.Option(min=2, max=100_000, help="How many devices.")]
ScenarioName = Annotated[
    str,
    typer.Option(
        help="good, slow-links, offline, flaky-downloads, bad-release, crashing-release, "
        "wrong-answers, bad-site; several with +."
    ),
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same story.")]
WindowSeconds = Annotated[float, typer.Option(min=10, max=3600, help="How often a device reports.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate")(simulate)


@takes_plan(named=False)
def simulate(
    specification: Document,
    plan: Plan = None,
    devices: Devices = 500,
    scenario: ScenarioName = "good",
    seed: Seed = 0,
    window_seconds: WindowSeconds = 300.0,
    as_json: AsJson = False,
) -> None:
    """Rehearse a rollout: the real engine against simulated devices, faster than real time."""
    from shoal.cli.rehearsal_page import Progress, rehearsal_page

    run = _find_simulator()
    asked = _read(plan) | specification
    screen = console()
    with Progress(None if as_json or not screen.is_terminal else screen) as progress:
        found = run(
            asked,
            devices=devices,
            scenario=scenario,
            seed=seed,
            window_seconds=window_seconds,
            tell=progress.tell,
        )
    if as_json:
        typer.echo(json.dumps(found))
    else:
        screen.print(rehearsal_page(found))
    raise typer.Exit(exits.rollout_exit_code(found["outcome"]))


def _find_simulator() -> Any:
    for one in entry_points(group=SIMULATORS, name="rollouts"):
        try:
            return one.load()
        except ImportError as error:
            raise ShoalError(
                f"simulate: needs the controller: pip install 'shoal[controller]' ({error})",
                code="no-controller",
            ) from error
    raise ShoalError(
        "simulate: needs the controller: pip install 'shoal[controller]'", code="no-controller"
    )


def _read(path: Path | None) -> Document:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"plan {path}: {error}", code="invalid-plan") from error
    if not isinstance(found, dict):
        raise InvalidInputError(f"plan {path}: expected an object, got {type(found).__name__}")
    return found
