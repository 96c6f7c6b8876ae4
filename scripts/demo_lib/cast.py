"""Who plays: three airports with three gateways each, reading the airport's hourly weather."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_fleet.agents import AgentSpec

from shoal.examples import weather

PROFILES = {
    "edge": "x86-64-gateway",
    "pi4": "raspberry-pi-4",
    "zero": "raspberry-pi-zero-2-w",
}
"""Part of the device's name to its hardware profile."""

FAULTY_DEVICE = "lga-zero"
FAULTY_FEATURE = "pressure"
FAULT_OFFSET = -30.0
ROWS_PER_SECOND = 80.0
WINDOW_SECONDS = 1.0
HEALTH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Cast:
    """The devices, in the order they enrol."""

    specs: list[AgentSpec]

    @property
    def names(self) -> list[str]:
        """Their ids."""
        return [spec.device for spec in self.specs]


def find_sources(folder: Path) -> dict[str, Path]:
    """Each station's file below the demo's folder."""
    return {name: folder / "data" / f"{name}.csv" for name in weather.STATIONS}


def write_sources(folder: Path) -> dict[str, Path]:
    """Write each station's year as CSV; return the files by station."""
    files = find_sources(folder)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, station in weather.load_weather().items():
        weather.write_replay(station, files[name])
    return files


def choose_cast(sources: dict[str, Path]) -> Cast:
    """Three devices of different hardware at each station."""
    return Cast(
        [
            _spec(f"{station}-{part}", station, profile, path)
            for station, path in sources.items()
            for part, profile in PROFILES.items()
        ]
    )


def _spec(device: str, station: str, profile: str, path: Path) -> AgentSpec:
    source: dict[str, Any] = {
        "kind": "csv",
        "path": str(path),
        "rate_hz": ROWS_PER_SECOND,
        "loop": True,
        "time_column": "time_ms",
    }
    if device == FAULTY_DEVICE:
        source["inject"] = [{"feature": FAULTY_FEATURE, "kind": "offset", "value": FAULT_OFFSET}]
    model = {"source": source, "actions": []}
    return AgentSpec(
        device,
        station,
        profile,
        {weather.MODEL: model},
        window_seconds=WINDOW_SECONDS,
        health_seconds=HEALTH_SECONDS,
    )
