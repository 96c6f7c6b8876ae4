"""The simulated world: a controller without broker and web, a fleet, and a clock of its own.

Events lie in a heap by their time. Between two ticks everything that is due happens; what devices
said is folded by ingest's own code and committed as one batch. Then the engine has its tick, and
the director signs, and hands desired states to the devices that are there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import insert

from controller import schema
from controller.app import build_services
from controller.config import load_settings
from controller.database import writing
from controller.director import Director
from controller.ingest.fold import Folder
from controller.ingest.write import write_batch
from controller.publication import Publication
from controller.releases import publish
from controller.rollouts.engine import Engine
from controller.services import Services
from controller.setup import initialise, trust_release_key
from controller.simulation.device import Device, Message, Running
from controller.simulation.scenario import Scenario
from shoal.package import file_entries, make_package, write_package
from shoal.protocol.desired import Assignment, decode_desired
from shoal.protocol.envelope import DESIRED_TYPE, decode_envelope
from shoal.protocol.manifest import Contract, Feature, Manifest, OutputField, Variant
from shoal.signing import FileSigner, KeyVerifier

MODEL = "rehearsed"
OLD, NEW = 1, 2
SITE_SIZE = 50
PROFILES = ("rpi4", "rpi5", "generic-x86_64")
PAST_WINDOWS = 8
"""Of every device, before the rollout begins."""
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is simulated."""

    devices: int
    scenario: Scenario
    seed: int = 0
    window_seconds: float = 300.0
    """How often each device reports what its model did."""


@dataclass(order=True, slots=True)
class _Due:
    at_ms: int
    number: int
    """Of two at the same moment the first made comes first."""
    happen: Callable[[int], list[Message]] = field(compare=False)


class World:
    """One simulation in a folder of its own."""

    def __init__(self, folder: Path, fleet: Fleet, begin: datetime) -> None:
        self.now_ms = int(begin.timestamp() * 1000)
        self.began_ms = self.now_ms
        self.fleet = fleet
        self.messages = 0
        self._heap: list[_Due] = []
        self._made = 0
        self._under_way = 0
        self.services, signer = _controller(folder, 3 * fleet.window_seconds)
        self.services.clock = lambda: self.now_ms
        self.releases = [_publish(self.services, folder, signer, number) for number in (OLD, NEW)]
        self.devices = {one.name: one for one in self._make_devices()}
        self._enrol()
        self._folder = Folder({one.name: one.site for one in self.devices.values()}, {})
        self._verifier = KeyVerifier([self.services.director.public_key])
        self._engine = Engine(self.services)
        self._director = Director(self.services.engine, self.services.director, self, self._now)
        self._live_before()

    # what the director needs of a link

    connected = True

    def publish(self, publications: list[Publication]) -> list[Publication]:
        """Hand desired states to the devices, which check them; they are retained for others."""
        for one in publications:
            device = self.devices[one.device]
            at_ms = max(self.now_ms, device.online_from_ms)
            if at_ms < NEVER_MS:
                self._at(at_ms, self._arrives(device, one.envelope))
        return publications

    def close(self) -> None:
        """Let go of the database."""
        self.services.engine.dispose()

    # time

    @property
    def is_calm(self) -> bool:
        """Whether no device works on anything."""
        return not self._under_way

    def run_for(self, seconds: float) -> None:
        """Let time pass, then everything that was said arrives, and the controller works."""
        until_ms = self.now_ms + int(seconds * 1000)
        said: list[Message] = []
        while self._heap and self._heap[0].at_ms <= until_ms:
            due = heapq.heappop(self._heap)
            self.now_ms = max(self.now_ms, due.at_ms)
            said += due.happen(self.now_ms)
        self.now_ms = until_ms
        self._commit(said)
        self._engine.tick()
        while self._director.work():
            pass

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.now_ms / 1000, UTC)

    def _at(self, at_ms: int, happen: Callable[[int], list[Message]]) -> None:
        self._made += 1
        heapq.heappush(self._heap, _Due(at_ms, self._made, happen))

    def _commit(self, said: list[Message]) -> None:
        self.messages += len(said)
        if said:
            batch = self._folder.fold(said, self.now_ms)
            assert not batch.rejections, batch.rejections
            with writing(self.services.engine) as connection:
                write_batch(connection, batch, self._folder.ranges, self.now_ms)

    # devices

    def _arrives(self, device: Device, envelope: bytes) -> Callable[[int], list[Message]]:
        def happen(now_ms: int) -> list[Message]:
            payload = self._verifier.open(decode_envelope(envelope), DESIRED_TYPE)
            desired = decode_desired(payload)
            if desired.sequence > device.accepted:
                for seconds, step, one in device.obey(desired):
                    self._under_way += 1
                    self._at(now_ms + int(seconds * 1000), self._takes(device, step, one))
            return []

        return happen

    def _takes(self, device: Device, step: str, one: Assignment) -> Callable[[int], list[Message]]:
        def happen(now_ms: int) -> list[Message]:
            self._under_way -= 1
            return device.take(step, one, now_ms)

        return happen

    def _reports(self, device: Device) -> Callable[[int], list[Message]]:
        period_ms = int(self.fleet.window_seconds * 1000)

        def happen(now_ms: int) -> list[Message]:
            self._at(now_ms + period_ms, happen)
            return [device.window(now_ms - period_ms, now_ms, NEW)]

        return happen

    def _make_devices(self) -> list[Device]:
        scenario, seed = self.fleet.scenario, self.fleet.seed
        found = []
        for number in range(self.fleet.devices):
            name = f"gw-{number:05}"
            random = Random(f"{seed}|{name}")  # noqa: S311 - chance, no secret
            online_from = self.now_ms
            if random.random() < scenario.offline_share:
                back = random.random() < scenario.returning_share
                online_from += random.randrange(3 * HOUR_MS) if back else NEVER_MS
            site = f"site-{number // SITE_SIZE}"
            found.append(
                Device(name, site, MODEL, scenario, random, self.releases[0],
                       online_from_ms=online_from)
            )  # fmt: skip
        return found

    def _enrol(self) -> None:
        rows: list[dict[str, Any]] = [
            {
                "device": one.name,
                "site": one.site,
                "profile": PROFILES[number % len(PROFILES)],
                "labels": {},
                "facts": {},
                "public_key": b"",
                "enrolled_ms": self.now_ms,
            }
            for number, one in enumerate(self.devices.values())
        ]
        with writing(self.services.engine) as connection:
            connection.execute(insert(schema.devices), rows)

    def _live_before(self) -> None:
        """Every device has run the old release for a while; some have gone since."""
        period_ms = int(self.fleet.window_seconds * 1000)
        past = [(number - PAST_WINDOWS) * period_ms for number in range(PAST_WINDOWS)]
        begin_ms = self.now_ms
        self._commit([one.state(begin_ms + past[0]) for one in self.devices.values()])
        for offset in past:
            self.now_ms = begin_ms + offset
            end_ms = self.now_ms + period_ms
            self._commit([one.window(self.now_ms, end_ms, NEW) for one in self.devices.values()])
        self.now_ms = begin_ms
        gone = [one for one in self.devices.values() if one.online_from_ms > begin_ms]
        self._commit([one.state(begin_ms, online=False) for one in gone])
        for one in self.devices.values():
            one.broken = self.fleet.scenario.bad_site and one.site == "site-0"
            if one.online_from_ms < NEVER_MS:
                first_ms = one.online_from_ms + one.random.randrange(1, period_ms)
                self._at(first_ms, self._reports(one))
            if begin_ms < one.online_from_ms < NEVER_MS:
                self._at(one.online_from_ms, _comes(one))


NEVER_MS = 2**60


def _comes(device: Device) -> Callable[[int], list[Message]]:
    return lambda now_ms: [device.state(now_ms)]


def _controller(folder: Path, offline_after_seconds: float) -> tuple[Services, FileSigner]:
    config = folder / "controller.toml"
    text = f'data_dir = "data"\noffline_after_seconds = {offline_after_seconds}\n'
    config.write_text(text, encoding="utf-8")
    settings = load_settings(config)
    initialise(settings)
    signer = FileSigner.generate()
    trust_release_key(settings, signer.public_key)
    return build_services(settings), signer


def _publish(services: Services, folder: Path, signer: FileSigner, number: int) -> Running:
    files = {"model.tflite": b"model" * number}
    manifest = Manifest(
        model=MODEL,
        version=str(number),
        sequence=number,
        created="2026-01-01T00:00:00+00:00",
        files=file_entries(files),
        variants=[Variant(name="only", file="model.tflite")],
        contract=Contract(
            features=[Feature(name="x")], outputs=[OutputField(name="anomaly", unit="")]
        ),
    )
    package = make_package(manifest, files, signer)
    path = folder / f"{number}.shoal"
    write_package(package, path)
    publish(services, path, "rehearsal")
    row = {"model": MODEL, "sequence": number, "bin": "", "signers": []}
    with writing(services.engine) as connection:  # simulated devices ask for no metadata
        connection.execute(
            insert(schema.published_releases).values(
                **row, published_ms=services.now_ms(), published_by="rehearsal"
            )
        )
    return Running(str(number), number, package.manifest_sha256)
