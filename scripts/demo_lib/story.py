"""The main job, step by step: enrol, roll out a first release, a better one, and a bad one.

Each step tells what it does and, when asked to check, collects what the public API did not show.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_fleet.fleet import LocalFleet

from demo_lib import cast, checks, words
from demo_lib.follow import follow_rollout
from demo_lib.progress import Progress
from shoal.examples import weather
from shoal.package import Package, write_package

Document = dict[str, Any]

STAGES = [
    {"name": "canary", "devices": 2},
    {"name": "25 %", "share": 0.25},
    {"name": "100 %", "share": 1.0},
]
SOAK_SECONDS = 2.0
PROBATION_SECONDS = 3.0
ROLLOUT_SECONDS = 180.0
REPORT_SECONDS = 60.0
WINDOWS_READ = 500


class Story:
    """What happens, with what was not observed in `missing`."""

    def __init__(self, fleet: LocalFleet, progress: Progress) -> None:
        self.fleet = fleet
        self.progress = progress
        self.missing: list[str] = []
        self._releases: list[Package] = []
        self._players = cast.Cast([])

    def tell(self) -> None:
        """All of it, in order."""
        self.build()
        self.start()
        self.enrol()
        self.first_release()
        self.better_release()
        self.drift()
        self.bad_release()
        self.account()

    def resume(self) -> None:
        """Start controller and agents as an earlier run left them, and change nothing."""
        with self.progress.step("Start the controller and the agents of the run before"):
            self.fleet.start_controller()
            self.fleet.find_agents(cast.choose_cast(cast.find_sources(self.fleet.folder)).specs)
            self.fleet.start_agents()

    def build(self) -> None:
        """Train the three releases on real weather and sign them."""
        with self.progress.step("Train three releases of a model on real airport weather"):
            sources = cast.write_sources(self.fleet.folder)
            self._players = cast.choose_cast(sources)
            self._releases = weather.build_releases(self.fleet.signer)
            for package in self._releases:
                write_package(package, self._package_path(package))
                self.progress.note(words.release_words(package.manifest))

    def start(self) -> None:
        """Start broker and controller."""
        with self.progress.step("Start the controller and its broker"):
            self.fleet.start_controller()
        self.progress.say(f"    [bold]Dashboard: {self.fleet.sign_in_url()}[/]")
        self.progress.note(
            f"to operate, once; to look only, as often as you like: {self.fleet.url}"
        )

    def enrol(self) -> None:
        """Enrol nine devices and start their agents."""
        names = self._players.names
        with self.progress.step(f"Enrol {len(names)} devices and start their agents"):
            self.fleet.enrol(self._players.specs)
            self.fleet.start_agents()
            for name in names:
                spec = self.fleet.agents[name].spec
                self.progress.note(f"{name} at {spec.site}, {spec.profile}")

    def first_release(self) -> None:
        """Release 1 to all devices in one wave."""
        first = self._releases[0]
        with self.progress.step(f"Roll out release {first.manifest.version} to all devices"):
            rollout = self._roll_out(first, [{"name": "all", "share": 1.0}])
            self._expect_running(first)
            executions = self.fleet.client.executions(rollout["rollout"])
            self.missing += checks.wave_faults(rollout, executions, self._windows(), ["all"], 1)

    def better_release(self) -> None:
        """Release 2 through canary, 25 % and 100 %."""
        better = self._releases[1]
        names = [str(stage["name"]) for stage in STAGES]
        with self.progress.step(
            f"Roll out release {better.manifest.version} in stages: {', '.join(names)}"
        ):
            rollout = self._roll_out(better, STAGES)
            self._expect_running(better)
            executions = self.fleet.client.executions(rollout["rollout"])
            sequence = better.manifest.sequence
            self.missing += checks.wave_faults(
                rollout, executions, self._windows(), names, sequence
            )

    def drift(self) -> None:
        """What the statistics say about seasons and about a broken sensor."""
        with self.progress.step("Compare live data with the training baseline"):
            for name in (self._players.names[0], cast.FAULTY_DEVICE):
                drift = self.fleet.client.drift(name, weather.MODEL)
                self.progress.note(f"{name}: {words.drift_words(drift)}")
            events = self.fleet.client.device_events(cast.FAULTY_DEVICE, limit=WINDOWS_READ)
            injected = [one["sentence"] for one in events if "injected" in one["sentence"]]
            if injected:
                self.progress.note(f"{cast.FAULTY_DEVICE}: {injected[-1]}")
            else:
                self.missing.append(f"{cast.FAULTY_DEVICE}: no event names the injected fault")

    def bad_release(self) -> None:
        """Release 3 loads and passes its hash check, predicts badly, and is taken back."""
        good, bad = self._releases[1:]
        with self.progress.step(
            f"Roll out release {bad.manifest.version}, which loads but predicts badly"
        ):
            rollout = self._roll_out(bad, STAGES)
            self.progress.note(f"{rollout['state']}: {rollout['reason']}")
            self._wait_for_reports()
            self.missing += checks.rollback_faults(
                rollout,
                self.fleet.client.executions(rollout["rollout"]),
                self._devices(),
                self._windows(),
                words.release_key(bad.manifest),
                words.release_key(good.manifest),
            )

    def account(self) -> None:
        """Every row and every message is accounted for."""
        with self.progress.step("Count every row and message"):
            windows = self._windows()
            rows, answered = checks.counted_rows(windows)
            self.missing += checks.unaccounted_windows(windows)
            self.missing += checks.rejected_messages(self.fleet.client.rejections())
            self.progress.note(f"{rows:,} rows read, {answered:,} answered, none unaccounted for")

    def _roll_out(self, package: Package, stages: list[Document]) -> Document:
        client = self.fleet.client
        self.fleet.release(self._package_path(package))
        created = client.create_rollout(
            {
                "model": weather.MODEL,
                "version": package.manifest.version,
                "selector": "*",
                "waves": stages,
                "soak_seconds": SOAK_SECONDS,
                "probation_seconds": PROBATION_SECONDS,
                "start": True,
            }
        )
        self.fleet.check_running()
        return follow_rollout(client, created["rollout"], ROLLOUT_SECONDS, self.progress.note)

    def _expect_running(self, package: Package) -> None:
        """Wait until all devices run and report a release; what is missing then is noted."""
        manifest = package.manifest
        names = self._players.names

        def lacks() -> list[str]:
            return checks.unready_devices(
                self._devices(), names, weather.MODEL, manifest.version
            ) + checks.silent_devices(self._windows(), manifest.sequence)

        self.missing += self._patiently(lacks)

    def _wait_for_reports(self) -> None:
        good = self._releases[1].manifest
        self._patiently(
            lambda: checks.unready_devices(
                self._devices(), self._players.names, weather.MODEL, good.version
            )
        )

    def _patiently(self, lacks: Callable[[], list[str]]) -> list[str]:
        return self.fleet.settle(lacks, REPORT_SECONDS)

    def _devices(self) -> list[Document]:
        return list(self.fleet.client.devices())

    def _windows(self) -> dict[str, list[Document]]:
        client = self.fleet.client
        return {
            name: client.windows(name, model=weather.MODEL, limit=WINDOWS_READ)
            for name in self._players.names
        }

    def _package_path(self, package: Package) -> Path:
        folder = self.fleet.folder / "releases"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{package.manifest.model}-{package.manifest.version}.shoal"
