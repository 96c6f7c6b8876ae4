"""The client against a scripted transport: paths, cursors, refusals, waiting, the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from shoal.client import ApiError, Client, UnreachableError, WaitTimeoutError
from shoal.errors import InvalidInputError
from shoal.sse import StreamEvent, parse_events

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(handler: Handler, token: str | None = None) -> Client:
    return Client("http://controller:1/", token, transport=httpx.MockTransport(handler))


def refuse(status: int, **problem: object) -> httpx.Response:
    return httpx.Response(
        status, json=problem, headers={"content-type": "application/problem+json"}
    )


def test_sends_the_token_as_bearer_to_the_versioned_path() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"devices": 0})

    with client_of(handler, "t.secret") as client:
        assert client.fleet() == {"devices": 0}
    assert seen[0].url == "http://controller:1/api/v1/fleet"
    assert seen[0].headers["authorization"] == "Bearer t.secret"


def test_follows_cursors_to_the_end_and_sends_only_given_filters() -> None:
    pages = {
        None: {"items": [{"device": "a"}, {"device": "b"}], "next_cursor": "b"},
        "b": {"items": [{"device": "c"}], "next_cursor": None},
    }

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.params.get("site") == "jfk"
        assert "status" not in request.url.params
        return httpx.Response(200, json=pages[request.url.params.get("cursor")])

    with client_of(handler) as client:
        found = [one["device"] for one in client.devices(site="jfk", status=None)]
    assert found == ["a", "b", "c"]


def test_a_refusal_keeps_the_controllers_code_sentence_and_status() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return refuse(409, code="wrong-state", detail="rollout r-1: is succeeded", title="Conflict")

    with client_of(handler) as client, pytest.raises(ApiError) as raised:
        client.command_rollout("r-1", "pause")
    assert raised.value.code == "wrong-state"
    assert raised.value.sentence == "rollout r-1: is succeeded"
    assert raised.value.status == 409


@pytest.mark.parametrize("body", ["<html>bad gateway</html>", "[]", "null", '{"detail": "x"}'])
def test_a_refusal_that_is_no_problem_document_is_named_by_its_status(body: str) -> None:
    client = client_of(lambda _: httpx.Response(502, text=body))
    with client, pytest.raises(ApiError) as raised:
        client.fleet()
    assert raised.value.code == "http-error"
    assert "502" in raised.value.sentence


@pytest.mark.parametrize("body", ["hello", "[1]", ""])
def test_an_answer_that_is_no_object_is_not_a_controller(body: str) -> None:
    client = client_of(lambda _: httpx.Response(200, text=body))
    with client, pytest.raises(UnreachableError, match="is it a controller"):
        client.fleet()


def test_a_dead_address_is_one_sentence_with_the_address() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)

    with client_of(handler) as client, pytest.raises(UnreachableError) as raised:
        client.fleet()
    assert "http://controller:1" in raised.value.sentence
    assert "Connection refused" in raised.value.sentence


def test_pushes_the_bytes_of_the_package(tmp_path: Path) -> None:
    package = tmp_path / "m.shoal"
    package.write_bytes(b"PK\x03\x04 bytes")

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["content-type"] == "application/octet-stream"
        assert request.content == package.read_bytes()
        return httpx.Response(201, json={"model": "m"})

    with client_of(handler) as client:
        assert client.push_release(package) == {"model": "m"}
        with pytest.raises(InvalidInputError, match=r"absent\.shoal"):
            client.push_release(tmp_path / "absent.shoal")


def scripted_rollout(states: list[str]) -> Handler:
    remaining: Iterator[str] = iter(states)

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"rollout": "r-1", "state": next(remaining)})

    return handler


@pytest.mark.parametrize("last", ["succeeded", "rolled_back", "paused", "rollback_failed"])
def test_waits_for_a_state_that_ends_or_asks(last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.client.POLL_SECONDS", 0.0)
    with client_of(scripted_rollout(["running", "rolling_back", last])) as client:
        assert client.wait_for_rollout("r-1", timeout=30)["state"] == last


def test_waiting_for_one_state_still_ends_at_a_final_one() -> None:
    with client_of(scripted_rollout(["aborted"])) as client:
        assert client.wait_for_rollout("r-1", until={"succeeded"}, timeout=30)["state"] == "aborted"


def test_waiting_ends_in_time_with_the_last_document() -> None:
    client = client_of(scripted_rollout(["running"]))
    with client, pytest.raises(WaitTimeoutError, match="still running") as raised:
        client.wait_for_rollout("r-1", timeout=0)
    assert raised.value.code == "wait-timeout"
    assert raised.value.last["state"] == "running"


def test_streams_events_and_passes_over_comments_and_broken_data() -> None:
    text = (
        ': hello\n\nid: 7\nevent: device\ndata: {"device":\ndata: "gw-1"}\n\n'
        'event: fleet\ndata: not json\n\nevent: rollout\ndata: {"rollout": "r-1"}\n\n'
    )
    with client_of(lambda _: httpx.Response(200, text=text)) as client:
        events = list(client.stream())
    assert events == [
        StreamEvent("device", {"device": "gw-1"}, "7"),
        StreamEvent("rollout", {"rollout": "r-1"}, "7"),
    ]


def test_a_refused_stream_is_an_api_error() -> None:
    client = client_of(lambda _: refuse(401, code="no-token", detail="a token is needed"))
    with client, pytest.raises(ApiError, match="a token is needed"):
        next(client.stream())


def test_an_event_without_its_closing_blank_line_is_not_delivered() -> None:
    assert list(parse_events(["event: device", 'data: {"device": "gw-1"}'])) == []
