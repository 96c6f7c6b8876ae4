"""A controller's database with a release whose baseline knows two features."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from sqlalchemy import insert

from controller.artifacts import Artifacts
from controller.database import create_tables, open_engine, writing
from controller.drift.monitor import Monitor
from controller.drift.sequential import Rule
from controller.schema import devices, releases, statistics
from shoal.baseline import encode_baseline
from shoal.statistics import Accumulator, Profiler, make_baseline

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
RULE = Rule(bucket_seconds=3600, learn_days=4, harmonics=1)
LEARN = int(RULE.learn)


class Fleet:
    """Writes what devices would have reported, an hour a window."""

    def __init__(self, folder):
        self.engine = open_engine(f"sqlite:///{folder / 'shoal.sqlite'}")
        create_tables(self.engine)
        self.artifacts = Artifacts(folder / "files")
        self.random = np.random.default_rng(1)
        training = self.rows(2000)
        self.baseline = make_baseline(training, training[:, :1], ["temp", "flow"], ["score"])
        self.digest = self.artifacts.put(encode_baseline(self.baseline))
        contract = {
            "features": [{"name": "temp", "unit": "°C"}, {"name": "flow", "unit": "l/min"}],
            "outputs": [{"name": "score"}],
        }
        with writing(self.engine) as connection:
            connection.execute(
                insert(releases).values(
                    model="pump",
                    sequence=1,
                    version="1.0.0",
                    manifest_sha256="0" * 64,
                    manifest_length=1,
                    manifest={"contract": contract},
                    envelope=b"",
                    signed_by=[],
                    published_ms=0,
                    published_by="test",
                )
            )

    def rows(self, count):
        return (self.random.standard_normal((count, 2)) * [2, 5] + [20, 60]).astype(np.float32)

    def add(self, name, site="plant"):
        with writing(self.engine) as connection:
            connection.execute(
                insert(devices).values(device=name, site=site, public_key=b"", enrolled_ms=0)
            )

    def report(self, name, hour, change=lambda rows: rows, release=1, delay_ms=60_000):
        rows = change(self.rows(100))
        features = Profiler(["temp", "flow"], [(None, None)] * 2, self.baseline)
        features.update(rows)
        outputs = Accumulator(["score"], [self.baseline.outputs[0].edges], [(None, None)])
        outputs.update(rows[:, :1])
        end_ms = START_MS + (hour + 1) * HOUR_MS
        with writing(self.engine) as connection:
            connection.execute(
                insert(statistics).values(
                    device=name,
                    model="pump",
                    version=f"{release}.0.0",
                    release_sequence=release,
                    slot="active",
                    baseline=self.digest,
                    start_ms=end_ms - HOUR_MS,
                    end_ms=end_ms,
                    received_ms=end_ms + delay_ms,
                    rows=len(rows),
                    lost=0,
                    features=msgspec.to_builtins(features.take()),
                    outputs=msgspec.to_builtins(outputs.take()),
                )
            )

    def monitor(self):
        """One that begins here, if none ran before; nothing is reported yet."""
        found = Monitor(self.engine, self.artifacts, RULE)
        found.store(START_MS)
        return found


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path)
    yield made
    made.engine.dispose()
