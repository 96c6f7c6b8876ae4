"""Commands at the controller: signed, published until answered, the first whole answer counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import commands
from controller.database import reading, writing
from controller.ingest.fold import Folder
from controller.ingest.write import write_batch
from shoal.errors import InvalidInputError, UntrustedError
from shoal.protocol.commands import (
    Command,
    LogTail,
    check_command,
    decode_command,
    parse_order,
)
from shoal.protocol.envelope import COMMAND_TYPE, decode_envelope
from shoal.protocol.messages import Reply, encode
from shoal.signing import KeyVerifier

TAIL = {"kind": "log-tail", "lines": 5}


@pytest.fixture
def ask(api, operator, enrolled):
    """Posts a command to an enrolled device."""
    enrolled("gw-1")

    def post(**body):
        return api.post("/api/v1/devices/gw-1/commands", json=TAIL | body, headers=operator)

    return post


@pytest.fixture
def answer(services):
    """Takes replies in as ingest does."""
    folder, numbers = Folder({"gw-1": "jfk"}, {}), iter(range(1, 1000))

    def take(command, *parts, boot="b1", device="gw-1", **more):
        wire = []
        for part, text in parts:
            reply = Reply(device=device, site="jfk", boot_id=boot, seq=next(numbers), ts_ms=1,
                          command=command, ok=True, part=part, parts=2, text=text)  # fmt: skip
            reply = msgspec.structs.replace(reply, **more)
            wire.append((f"shoal/v1/jfk/{device}/replies", encode(reply)))
        batch = folder.fold(wire, 1000)
        with writing(services.engine) as connection:
            write_batch(connection, batch, folder.ranges, 1000)

    return take


def test_what_is_published_is_signed_for_this_device_and_expires(ask, services):
    document = ask(expires_seconds=60).json()
    assert (document["state"], document["kind"]) == ("waiting", "log-tail")
    with reading(services.engine) as connection:
        (one,) = commands.find_unpublished(connection, services.now_ms())
    envelope = decode_envelope(one.envelope)
    payload = KeyVerifier([services.director.public_key]).open(envelope, COMMAND_TYPE)
    command = decode_command(payload)
    now = datetime.now(UTC)
    check_command(command, device="gw-1", now=now)
    assert command.order == LogTail(lines=5)
    with pytest.raises(UntrustedError, match="expected device gw-2"):
        check_command(command, device="gw-2", now=now)
    with pytest.raises(UntrustedError) as caught:
        check_command(command, device="gw-1", now=now + timedelta(seconds=61))
    assert caught.value.code == "expired"


def test_it_is_published_once_and_again_for_who_is_online_and_silent(ask, answer, services):
    command = ask().json()["command"]
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        commands.mark_published(connection, command, now_ms)
        assert commands.find_unpublished(connection, now_ms) == []
        assert commands.find_unanswered(connection, now_ms) == []  # not online
        connection.exec_driver_sql("UPDATE devices SET online = 1")
        assert len(commands.find_unanswered(connection, now_ms)) == 1
        assert commands.find_unanswered(connection, now_ms + 10**9) == []  # expired
    answer(command, (1, "a"), (2, "b"))
    with reading(services.engine) as connection:
        assert commands.find_unanswered(connection, now_ms) == []


def test_an_answer_counts_when_it_is_whole_in_any_order(ask, answer, api, operator):
    command = ask().json()["command"]
    path = f"/api/v1/devices/gw-1/commands/{command}"
    answer(command, (2, "1}"))
    assert "text" not in api.get(path, headers=operator).json()
    answer(command, (1, "other"), boot="b2")
    answer(command, (1, '{"a": '), (2, "again"))
    document = api.get(path, headers=operator).json()
    assert (document["state"], document["text"]) == ("answered", '{"a": 1}')
    assert document["document"] == {"a": 1}


def test_another_device_cannot_answer(ask, answer, api, operator):
    command = ask().json()["command"]
    answer(command, (1, "x"), (2, "y"), device="gw-2")
    document = api.get(f"/api/v1/devices/gw-1/commands/{command}", headers=operator).json()
    assert document["state"] == "waiting"


def test_a_refusal_says_why(ask, answer, api, operator):
    command = ask().json()["command"]
    answer(command, (1, ""), parts=1, ok=False, code="no-capture", sentence="none")
    document = api.get(f"/api/v1/devices/gw-1/commands/{command}", headers=operator).json()
    assert (document["state"], document["code"]) == ("refused", "no-capture")


def test_commands_that_wait_are_bounded(ask):
    for _ in range(commands.MAX_WAITING):
        assert ask().status_code == 201
    assert ask().json()["code"] == "too-many-commands"


@pytest.mark.parametrize(
    "body", [{"expires_seconds": 0}, {"expires_seconds": 86_401}, {"expires_seconds": True},
             {"lines": 1001}, {"kind": "format-disk"}, {"unknown": 1}]
)  # fmt: skip
def test_what_is_no_command_is_refused(ask, body):
    assert 400 <= ask(**body).status_code < 500


def test_a_command_valid_for_a_year_is_refused_by_the_device():
    now = datetime.now(UTC)
    command = Command(device="gw-1", command="c-1", issued=now, expires=now + timedelta(days=365),
                      order=LogTail())  # fmt: skip
    with pytest.raises(UntrustedError) as caught:
        check_command(command, device="gw-1", now=now)
    assert caught.value.code == "valid-too-long"


@given(st.binary(max_size=200))
def test_garbage_is_one_error(data):
    with pytest.raises(UntrustedError):
        decode_command(data)


def test_an_order_is_parsed_or_refused_in_words():
    assert parse_order({"kind": "log-tail"}) == LogTail(lines=200)
    with pytest.raises(InvalidInputError, match="command"):
        parse_order([1])
