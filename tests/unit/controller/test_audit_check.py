"""The audit log's chain, checked a piece at a time; and who asks for which rows."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select, update

from controller import audit, audit_check
from controller.audit_check import AGAIN_MS, ChainCheck
from controller.database import reading, writing
from controller.schema import audit as table


@pytest.fixture
def log(services, monkeypatch):
    """Twelve rows, looked at five at a time."""
    monkeypatch.setattr(audit_check, "PIECE", 5)
    with writing(services.engine) as connection:
        connection.execute(delete(table))
        for number in range(12):
            actor = "ann" if number % 2 else "bob"
            action = "rollout.start" if number % 3 else "rollouts"
            audit.record(connection, number * 1000, actor, action, f"rollout r_{number}")
    return services.engine


def _look(check, engine, now_ms=AGAIN_MS):
    with reading(engine) as connection:
        return check.look(connection, now_ms)


def test_each_look_goes_on_where_the_last_one_stopped(log):
    check = ChainCheck()
    states = [_look(check, log) for _ in range(3)]
    assert [one.whole for one in states] == [False, False, True]
    assert states[-1].checked_id == states[-1].newest_id


def test_a_changed_row_is_found_and_stays_found(log):
    with writing(log) as connection:
        third = connection.scalar(select(table.c.id).order_by(table.c.id).offset(2).limit(1))
        connection.execute(update(table).where(table.c.id == third).values(actor="eve"))
    check = ChainCheck()
    assert _look(check, log).broken_id == third
    assert _look(check, log).broken_id == third


def test_what_was_checked_is_checked_again_after_an_hour(log):
    check = ChainCheck()
    for _ in range(3):
        newest = _look(check, log).newest_id
    with writing(log) as connection:
        connection.execute(update(table).where(table.c.id == newest).values(actor="eve"))
    assert _look(check, log).whole
    found = [_look(check, log, 2 * AGAIN_MS) for _ in range(3)]
    assert found[-1].broken_id == newest


def test_rows_taken_off_the_end_are_missed(log):
    check = ChainCheck()
    for _ in range(3):
        newest = _look(check, log).newest_id
    with writing(log) as connection:
        connection.execute(delete(table).where(table.c.id == newest))
    found = _look(check, log)
    assert not found.whole
    assert "gone" in found.why


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"actor": "ann"}, 6),
        ({"action": "rollout"}, 8),
        ({"action": "rollouts"}, 4),
        ({"subject": "r_1"}, 3),
        ({"subject": "r%1"}, 0),
        ({"since_ms": 3000, "until_ms": 5000}, 2),
    ],
    ids=str,
)
def test_rows_are_found_by_who_what_and_when(log, wanted, count):
    with reading(log) as connection:
        assert len(audit.list_rows(connection, 100, None, audit.Filter(**wanted))) == count
