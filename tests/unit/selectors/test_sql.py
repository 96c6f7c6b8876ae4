"""The database finds the devices that the predicate means."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from controller import schema
from controller.database import create_tables, open_engine, reading, writing
from controller.selection import Moment, Selection, matching, subjects
from shoal.selector import DEVICE_STATES, Group, matches, parse_selector

HOUR_MS = 3_600_000
NOW_MS = 100 * HOUR_MS
MOMENT = Moment(NOW_MS, 2 * HOUR_MS)
LABELS = ("lab", "hall 3, left", "50%_", "a'b", 'q"', "ü", "")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Sixty devices of every kind, some never heard of, some revoked."""
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('db') / 'shoal.sqlite'}")
    create_tables(engine)
    random = Random(5)
    with writing(engine) as connection:
        for number in range(60):
            seen = random.choice([None, *(NOW_MS - hours * HOUR_MS for hours in (0, 1, 3, 50))])
            labels = {
                key: random.choice(LABELS) for key in ("tag", "a.b-c") if random.random() > 0.4
            }
            connection.execute(insert(schema.devices).values(
                device=f"gw-{number}", site=random.choice(["jfk", "lga"]),
                profile=random.choice(["pi", "nuc", ""]), labels=labels, public_key=b"",
                enrolled_ms=1, online=random.random() > 0.2, last_seen_ms=seen,
                status=random.choice(DEVICE_STATES[:3]), revoked_ms=1 if number % 20 == 0 else None,
            ))  # fmt: skip
            for model in random.sample(["vib", "hum"], random.randint(0, 2)):
                connection.execute(insert(schema.device_models).values(
                    device=f"gw-{number}", model=model,
                    active_version=random.choice(["1", "2", None]),
                ))  # fmt: skip
            if number % 3 == 0:
                row = {"name": "static", "device": f"gw-{number}"}
                connection.execute(insert(schema.group_devices).values(**row))
    yield engine
    engine.dispose()


def _quoted(value):
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _values(values):
    return st.lists(st.sampled_from(values), min_size=1, max_size=3).map(",".join)


TERMS = st.tuples(
    st.sampled_from(["", "!", "not "]),
    st.one_of(
        _values(["jfk", "lga", "ulm"]).map("site:{}".format),
        _values(["pi", "nuc", '""']).map("profile:{}".format),
        _values([f"gw-{n}" for n in range(0, 60, 7)]).map("device:{}".format),
        _values(["vib", "hum", "vib@1", "hum@2", "no@1"]).map("model:{}".format),
        _values(list(DEVICE_STATES)).map("state:{}".format),
        _values(["<1h", "<2h", ">1h", ">49h", "<51h", ">0s"]).map("seen:{}".format),
        _values([_quoted(value) for value in LABELS]).map("tag:{}".format),
        _values([_quoted(value) for value in LABELS]).map("label.a.b-c:{}".format),
        _values(["static", "saved", "deep"]).map("group:{}".format),
        st.sampled_from(["gw-1", "GW-2", "-3", "%", "_", "5"]),
    ),
).map("".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TERMS, min_size=1, max_size=4))
def test_sql_finds_what_the_predicate_means(engine, texts):
    terms = parse_selector(" ".join(texts), bare_words=True)
    with reading(engine) as connection:
        everyone = subjects(connection, Selection((), {}), MOMENT, with_models=True)
        static = frozenset(connection.scalars(select(schema.group_devices.c.device)))
        groups = {
            "static": Group(None, static),
            "saved": Group(parse_selector("site:jfk not tag:lab")),
            "deep": Group(parse_selector("!group:static,saved")),
        }
        found = subjects(connection, Selection(terms, groups), MOMENT, with_models=True)
        query = select(schema.devices.c.device).where(matching(Selection(terms, groups), MOMENT))
        condition = {*connection.scalars(query)} - {"gw-0", "gw-20", "gw-40"}
    assert len(everyone) == 57
    expected = [one for one in everyone if matches(terms, one, NOW_MS, groups)]
    assert found == expected
    assert condition == {one.device for one in expected}
