"""The whole loop on this machine, on real input: `scripts/demo [--check] [--keep]`.

Starts an MQTT broker, the controller and nine agents, each a real process; enrols them; rolls
out a first release, a better one through canary, 25 % and 100 %, and a bad one, which is caught
and taken back. Everything lives in its own folder and ends with the demo.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from demo_lib.folder import prepare_folder
from demo_lib.progress import Progress
from demo_lib.story import Story
from local_fleet.fleet import LocalFleet
from local_fleet.processes import LocalFleetError
from rich.console import Console

from shoal.errors import ShoalError

ROOT = Path(__file__).resolve().parent.parent
STEPS = 8
INTERRUPTED = 130


def main() -> int:
    """Run the demo; the exit code says whether all was observed."""
    arguments = _parser().parse_args()
    console = Console(highlight=False)
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background job has SIGINT ignored
        signal.signal(number, _interrupt)
    try:
        return _run(arguments, console)
    except (LocalFleetError, ShoalError) as error:
        console.print(f"demo: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("demo: interrupted, everything is stopped")
        return INTERRUPTED


def _run(arguments: argparse.Namespace, console: Console) -> int:
    folder = arguments.dir.resolve()
    resumed = prepare_folder(folder, keep_state=arguments.keep_state)
    progress = Progress(console, 1 if resumed else STEPS)
    with LocalFleet(folder, broker=arguments.broker, port=arguments.port) as fleet:
        story = Story(fleet, progress)
        story.resume() if resumed else story.tell()
        code = _verdict(story, console) if arguments.check and not resumed else 0
        console.print(f"All of it took {progress.seconds:.0f} s; logs are in {fleet.logs}")
        if arguments.keep or resumed:
            _stay(fleet, console)
        return code


def _verdict(story: Story, console: Console) -> int:
    if not story.missing:
        console.print("check: everything was observed through the public API", style="green")
        return 0
    console.print(f"check: {len(story.missing)} things were not observed:", style="red")
    for sentence in story.missing:
        console.print(f"  - {sentence}", markup=False, soft_wrap=True)
    return 1


def _stay(fleet: LocalFleet, console: Console) -> None:
    console.print(f"Dashboard: {fleet.sign_in_url()}  (Ctrl-C ends everything)", style="bold")
    console.print(f"  once, as operator; to look only: {fleet.url}")
    console.print(f"  export SHOAL_URL={fleet.url} SHOAL_TOKEN_FILE={fleet.controller.token_file}")
    while True:
        fleet.check_running()
        time.sleep(1.0)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="exit non-zero unless all was observed"
    )
    parser.add_argument("--keep", action="store_true", help="stay up for looking around")
    parser.add_argument(
        "--keep-state", action="store_true", help="look at the run before: start it again"
    )
    parser.add_argument("--dir", type=Path, default=ROOT / ".demo", help="folder for all state")
    parser.add_argument("--broker", choices=("auto", "mosquitto", "nats"), default="auto")
    parser.add_argument("--port", type=int, help="port of the dashboard (default: a free one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
