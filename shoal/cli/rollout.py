"""`shoal rollout …`: move a model to a release on the devices that a selector matches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from shoal.cli import exits
from shoal.cli.plan_options import takes_plan
from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show
from shoal.errors import InvalidInputError

Document = dict[str, Any]

app = typer.Typer(
    help="Rollouts: staged, gated, reversible.", no_args_is_help=True, rich_markup_mode=None
)

Rollout = Annotated[str, typer.Argument(help="The rollout's name, as `list` shows it.")]
Timeout = Annotated[float, typer.Option(min=0, help="Give up after so many seconds (exit 5).")]
Expect = Annotated[
    int | None, typer.Option(min=1, help="Refuse unless so many devices match and can run it.")
]
OutDevice = Annotated[str | None, typer.Argument(help="The device.")]
OutSite = Annotated[str | None, typer.Option("--site", help="All devices of a site.")]
Reason = Annotated[str, typer.Option(help="Why; stands in the audit log.")]

DAY_SECONDS = 86_400.0

VERBS = {
    "pause": "Hold a rollout where it is; devices under way finish.",
    "resume": "Go on with a paused rollout.",
    "promote": "Pass the wave under way now, without waiting for its soak and gates.",
    "abort": "Stop; devices keep what they run.",
    "rollback": "Stop, and bring every device back to the release before.",
    "retry": "Try the failed devices once more.",
}


@app.command("create")
@takes_plan()
def create(
    specification: Document,
    expect: Expect = None,
    start: Annotated[bool, typer.Option(help="Start at once, or leave a draft.")] = True,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Create a rollout and start it."""
    from shoal.cli.watch import rollout_line

    with connect(url) as client:
        document = client.create_rollout(specification | {"start": start, "expect": expect})
    show(document, as_json, rollout_line(document))


@app.command("preview")
@takes_plan()
def preview(specification: Document, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show what a rollout would do, without doing it."""
    from shoal.cli.render import preview_page

    with connect(url) as client:
        document = client.preview_rollout(specification)
    show(document, as_json, preview_page(document))


@app.command("list")
def list_rollouts(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List rollouts, newest first."""
    from shoal.cli.render import rollout_table

    with connect(url) as client:
        rollouts = client.rollouts()
    show(rollouts, as_json, rollout_table(rollouts))


@app.command("show")
def show_rollout(rollout: Rollout, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show one rollout with its waves, gates and devices."""
    from rich.console import Group

    from shoal.cli.render import execution_table
    from shoal.cli.watch import rollout_picture

    with connect(url) as client:
        document = client.rollout(rollout)
        executions = client.executions(rollout)
    picture = Group(rollout_picture(document, _now_ms()), execution_table(executions))
    show(document | {"executions": executions}, as_json, picture)


@app.command("watch")
def watch(
    rollout: Rollout,
    timeout: Timeout = DAY_SECONDS,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Follow a rollout live until it ends; the exit code says how."""
    from shoal.cli.follow import follow

    with connect(url) as client:
        state = follow(client, rollout, timeout, as_json=as_json)
    raise typer.Exit(exits.rollout_exit_code(state))


@app.command("wait")
def wait(
    rollout: Rollout,
    timeout: Timeout = 3600.0,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Wait until a rollout ends or pauses; exit 0 succeeded, 3 paused, 4 rolled back, 5 late."""
    from shoal.cli.watch import rollout_line

    with connect(url) as client:
        document = client.wait_for_rollout(rollout, timeout=timeout)
    show(document, as_json, rollout_line(document))
    raise typer.Exit(exits.rollout_exit_code(document["state"]))


def _verb(verb: str) -> Callable[..., None]:
    def command(rollout: Rollout, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
        from shoal.cli.watch import rollout_line

        with connect(url) as client:
            document = client.command_rollout(rollout, verb)
        show(document, as_json, rollout_line(document))

    return command


@app.command("start")
def start(
    rollout: Rollout, expect: Expect = None, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Start a draft; with --expect, planned anew for the devices that match now."""
    from shoal.cli.watch import rollout_line

    with connect(url) as client:
        document = client.command_rollout(rollout, "start", expect)
    show(document, as_json, rollout_line(document))


@app.command("recall")
def recall(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Take a model's newest release back from the whole fleet, now and at full rate."""
    from shoal.cli.watch import rollout_line

    with connect(url) as client:
        document = client.recall_model(model)
    show(document, as_json, rollout_line(document))


@app.command("opt-out")
def opt_out(
    device: OutDevice = None,
    site: OutSite = None,
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Leave a device, or all of a site, out of rollouts; without either, list who is."""
    with connect(url) as client:
        if device is None and site is None:
            found = client.opt_outs()
            lines = [
                f"{one['scope']} {one['subject']}: {one['reason']} ({one['by']})" for one in found
            ]
            show(found, as_json, "\n".join(lines) or "everybody takes part")
            return
        scope, subject = ("device", device) if device is not None else ("site", str(site))
        document = client.opt_out(scope, subject, reason)
    show(document, as_json, f"{scope} {subject} takes no part in rollouts")


@app.command("opt-in")
def opt_in(
    device: OutDevice = None, site: OutSite = None, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Let a device, or a site, take part again."""
    if (device is None) == (site is None):
        raise InvalidInputError("opt-in: expected either a device or --site")
    scope, subject = ("device", device) if device is not None else ("site", str(site))
    with connect(url) as client:
        document = client.opt_in(scope, subject)
    show(document, as_json, f"{scope} {subject} takes part again")


@app.command("approve")
def approve(
    rollout: Rollout, reason: Reason = "", url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Agree to a start or a wave that waits for another person's approval."""
    from shoal.cli.watch import rollout_line

    with connect(url) as client:
        document = client.approve_rollout(rollout, reason)
    show(document, as_json, rollout_line(document))


@app.command("reject")
def reject(
    rollout: Rollout,
    reason: Annotated[str, typer.Option(help="Why; people see it.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Refuse a start, which ends the rollout, or a wave, which pauses it."""
    from shoal.cli.watch import rollout_line

    with connect(url) as client:
        document = client.reject_rollout(rollout, reason)
    show(document, as_json, rollout_line(document))


for _name, _help in VERBS.items():
    app.command(_name, help=_help)(_verb(_name))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
