"""Several writers on one SQLite file: they wait for each other, and nobody sees a lock."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, insert, inspect, select

from controller import audit, schema
from controller.database import create_tables, open_engine, reading, writing
from shoal.errors import ShoalError

WRITER = """
import sys, time
from controller import audit
from controller.database import open_engine, writing
engine = open_engine(sys.argv[1])
for number in range(int(sys.argv[3])):
    with writing(engine) as connection:
        audit.record(connection, number, sys.argv[2], "write", str(number))
        time.sleep(0.002)
"""
OPENER = """
import sys
from controller.database import create_tables, open_engine
create_tables(open_engine(sys.argv[1]))
"""


def _python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True
    )


def _wait(processes):
    for process in processes:
        _, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors


def test_processes_and_threads_write_at_once_and_the_chain_holds(services):
    """Ingest is a process of its own; engine and web are threads of another."""
    url, each = services.settings.database_url, 40
    processes = [_python(WRITER, url, f"process {number}", str(each)) for number in range(2)]
    with reading(services.engine) as connection:
        before = connection.scalar(select(func.count()).select_from(schema.audit))

    def write(name):
        for number in range(each):
            with writing(services.engine) as connection:
                audit.record(connection, number, name, "write", str(number))

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(write, f"thread {number}") for number in range(3)]:
            future.result(timeout=90)
    _wait(processes)

    with reading(services.engine) as connection:
        found = connection.scalar(select(func.count()).select_from(schema.audit))
        assert (found, audit.find_break(connection)) == (before + 5 * each, None)


def test_a_reader_is_not_held_up_by_a_writer_and_sees_one_moment(services):
    with reading(services.engine) as reader:
        before = reader.scalar(select(func.count()).select_from(schema.audit))
        done = threading.Event()

        def write():
            with writing(services.engine) as connection:
                audit.record(connection, 1, "ann", "write", "x")
            done.set()

        threading.Thread(target=write).start()
        assert done.wait(30)
        assert reader.scalar(select(func.count()).select_from(schema.audit)) == before
    with reading(services.engine) as reader:
        assert reader.scalar(select(func.count()).select_from(schema.audit)) == before + 1


def test_processes_that_make_the_same_database_at_once_all_succeed(tmp_path):
    url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    _wait([_python(OPENER, url) for _ in range(3)])
    engine = open_engine(url)
    create_tables(engine)
    engine.dispose()


def test_a_database_of_another_schema_is_refused_in_words(services):
    with writing(services.engine) as connection:
        here = schema.settings.c.key == "schema"
        connection.execute(schema.settings.update().where(here).values(value=99))
    with pytest.raises(ShoalError, match="schema 99") as error:
        create_tables(services.engine)
    assert error.value.code == "wrong-schema"


def test_a_database_of_an_older_version_gets_the_columns_that_it_lacks(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'shoal.sqlite'}")
    create_tables(engine)
    with writing(engine) as connection:
        connection.execute(insert(schema.waves).values(
            rollout="r-1", number=1, name="w", state="passed", size=1, gates=[],
        ))  # fmt: skip
        connection.exec_driver_sql("ALTER TABLE waves DROP COLUMN needs_approval")
        connection.exec_driver_sql("ALTER TABLE rollouts DROP COLUMN started_by")
    create_tables(engine)
    create_tables(engine)
    with reading(engine) as connection:
        assert connection.execute(select(schema.waves.c.needs_approval)).scalars().all() == [False]
        assert connection.execute(select(schema.rollouts.c.started_by)).all() == []
    engine.dispose()


def test_a_database_of_an_older_version_gets_the_indexes_that_it_lacks(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'old.sqlite'}")
    create_tables(engine)

    def indexes():
        return {one["name"] for one in inspect(engine).get_indexes("audit")}

    names = indexes()
    assert names
    with writing(engine) as connection:
        for name in names:
            connection.exec_driver_sql(f"DROP INDEX {name}")
    assert indexes() == set()
    for _ in range(2):  # the second time there is nothing to do
        create_tables(engine)
        assert indexes() == names
    engine.dispose()
