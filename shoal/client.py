"""The Python client of the controller's API v1, for notebooks, CI and the operators' CLI.

Documents are plain dictionaries with the field names of the API, so nothing of a newer
controller's answer is lost. Everything refused is an `ApiError` with the controller's own
stable `code` and sentence; a controller that cannot be reached is an `UnreachableError`.
Lists come as iterators that follow the cursors.

    with Client("http://127.0.0.1:8080", token) as client:
        client.push_release(Path("weather-2.shoal"))
        rollout = client.create_rollout({"model": "weather", "version": "2"})
        client.wait_for_rollout(rollout["rollout"], timeout=600)
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from shoal.errors import InvalidInputError, ShoalError
from shoal.sse import StreamEvent, parse_events

Document = dict[str, Any]

FINAL_STATES = frozenset({"succeeded", "aborted", "rolled_back", "rollback_failed"})
"""Rollout states that nothing leaves."""

REQUEST_TIMEOUT_SECONDS = 10.0
UPLOAD_TIMEOUT_SECONDS = 120.0
STREAM_SILENCE_SECONDS = 60.0
"""The controller sends a comment more often than this, so longer silence is a dead link."""
POLL_SECONDS = 0.25
PAGE_ROWS = 200
TELEMETRY_PAGE_ROWS = 1000


class ApiError(ShoalError):
    """The controller answered, and refused."""

    def __init__(self, sentence: str, *, code: str, status: int) -> None:
        super().__init__(sentence, code=code)
        self.status = status


class UnreachableError(ShoalError):
    """No usable answer came from the controller's address."""

    code = "controller-unreachable"


class WaitTimeoutError(ShoalError):
    """What was waited for did not happen in time; `last` is the document as last seen."""

    code = "wait-timeout"

    def __init__(self, sentence: str, last: Document) -> None:
        super().__init__(sentence)
        self.last = last


class Client:
    """One controller. Not for use by several threads at once."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = REQUEST_TIMEOUT_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(
                base_url=f"{self.url}/api/v1",
                headers=headers,
                timeout=timeout,
                transport=transport,
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise InvalidInputError(f"controller address {url!r}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # fleet and devices

    def health(self) -> Document:
        """Whether the controller and its parts run."""
        return self._get("/health")

    def fleet(self) -> Document:
        """Counters of the fleet and of each site."""
        return self._get("/fleet")

    def devices(self, **filters: str | None) -> Iterator[Document]:
        """Devices that match `site`, `status`, `model`, `version`, `q`."""
        return self._pages("/devices", filters)

    def device(self, device: str) -> Document:
        """One device with its models and its newest health."""
        return self._get(f"/devices/{device}")

    def windows(self, device: str, **query: str | int | None) -> list[Document]:
        """Reporting windows; `model`, `since_ms`, `limit`."""
        return self._items(f"/devices/{device}/windows", query)

    def statistics(self, device: str, **query: str | int | None) -> list[Document]:
        """Distributions of features and outputs, a window each; `model`, `since_ms`, `limit`."""
        return self._items(f"/devices/{device}/statistics", query)

    def predictions(self, device: str, **query: str | int | None) -> list[Document]:
        """Single answers, where the device publishes them; `model`, `since_ms`, `limit`."""
        return self._items(f"/devices/{device}/predictions", query)

    def all_predictions(self, device: str, model: str, **query: int | None) -> Iterator[Document]:
        """Every stored answer, newest first, a page at a time; `since_ms`, `until_ms`."""
        wanted = {"model": model, "limit": TELEMETRY_PAGE_ROWS} | query
        return self._pages(f"/devices/{device}/predictions", wanted)

    def device_events(self, device: str, **query: str | int | None) -> list[Document]:
        """What happened on one device; `since_ms`, `limit`."""
        return self._items(f"/devices/{device}/events", query)

    def device_health(self, device: str, **query: str | int | None) -> list[Document]:
        """Health over time of one device; `since_ms`, `limit`."""
        return self._items(f"/devices/{device}/health", query)

    def drift(self, device: str, model: str) -> Document:
        """How far the device's data is from the baseline of the release it runs."""
        return self._get(f"/devices/{device}/drift", {"model": model})

    # alerts

    def alerts(self, **query: str | int | None) -> list[Document]:
        """Streams that changed; `state` (open, ended, all), `model`, `subject`, `limit`."""
        return self._items("/alerts", query)

    def acknowledge_alert(self, alert: int, *, note: str = "", accept: bool = False) -> Document:
        """Say that it was seen; `accept` takes the present level as the new normal."""
        body = {"note": note, "accept": accept}
        return self._send("POST", f"/alerts/{alert}/acknowledge", json=body)

    # asking one device

    def command_device(self, device: str, order: Document) -> Document:
        """Ask a device: `kind` log-tail, support-bundle, capture-range or replay, and options."""
        return self._send("POST", f"/devices/{device}/commands", json=order)

    def commands(self, device: str, **query: str | int | None) -> list[Document]:
        """Commands to a device, newest first; `limit`."""
        return self._items(f"/devices/{device}/commands", query)

    def command(self, device: str, command: str) -> Document:
        """One command, with its answer once it is whole."""
        return self._get(f"/devices/{device}/commands/{command}")

    def ask_device(self, device: str, order: Document, timeout: float = 120.0) -> Document:
        """Ask a device and wait for its answer; a refusal is an `ApiError` with its code.

        Raises `WaitTimeoutError` after `timeout` seconds, or when the command expires.
        """
        document = self.command_device(device, order)
        deadline = time.monotonic() + timeout
        while document["state"] in ("waiting", "published"):
            if time.monotonic() >= deadline:
                break
            time.sleep(POLL_SECONDS)
            document = self.command(device, document["command"])
        if document["state"] == "refused":
            raise ApiError(document["sentence"], code=document["code"], status=200)
        if document["state"] != "answered":
            raise WaitTimeoutError(
                f"device {device}: no answer to {document['kind']} after {timeout:g} s", document
            )
        return document

    def captures(self, device: str, **query: str | int | None) -> list[Document]:
        """Captured samples that were pulled from a device; `model`, `since_ms`, `limit`."""
        return self._items(f"/devices/{device}/captures", query)

    def options(self, device: str) -> Document:
        """Settings given to a device from afar; null where its own hold."""
        return self._get(f"/devices/{device}/options")

    def set_options(self, device: str, changes: Document) -> Document:
        """Change settings of a device; null gives one back to it."""
        return self._send("PATCH", f"/devices/{device}/options", json=changes)

    # models and releases

    def models(self) -> list[Document]:
        """Every model name with its releases."""
        return self._items("/models", {})

    def model(self, model: str) -> Document:
        """One model and its releases."""
        return self._get(f"/models/{model}")

    def release(self, model: str, version: str) -> Document:
        """One release with its manifest."""
        return self._get(f"/models/{model}/releases/{version}")

    def release_performance(self, model: str, version: str) -> Document:
        """How often the release is right on its devices, estimated from their scores."""
        return self._get(f"/models/{model}/releases/{version}/performance")

    def push_release(self, package: Path) -> Document:
        """Upload a package file; it is released once targets metadata list it, signed.

        `shoal.trust.desk.Desk.publish` does that with the targets keys at hand.
        """
        try:
            with package.open("rb") as file:
                return self._send(
                    "POST",
                    "/releases",
                    content=file.read(),
                    headers={"content-type": "application/octet-stream"},
                    timeout=UPLOAD_TIMEOUT_SECONDS,
                )
        except OSError as error:
            raise InvalidInputError(f"package {package}: {error.strerror}") from error

    # registry

    def aliases(self, model: str | None = None) -> list[Document]:
        """Where every alias points, of one model or of all."""
        return self._items("/aliases", {"model": model})

    def set_alias(self, model: str, alias: str, version: str, **options: str | None) -> Document:
        """Point an alias at a release; `reason`, `expect` (where it points now).

        The change is `waiting` where another person must agree first.
        """
        body = {"version": version} | options
        return self._send("PUT", f"/models/{model}/aliases/{alias}", json=body)

    def remove_alias(self, model: str, alias: str, reason: str = "") -> Document:
        """Take an alias away."""
        path = f"/models/{model}/aliases/{alias}"
        return self._send("DELETE", path, params={"reason": reason})

    def alias_changes(self, **query: str | None) -> Iterator[Document]:
        """Every move of aliases, newest first; `model`, `alias`, `state`."""
        return self._pages("/alias-changes", query)

    def decide_alias_change(self, change: int, verb: str, reason: str = "") -> Document:
        """`verb` is approve, reject or withdraw."""
        return self._send("POST", f"/alias-changes/{change}/{verb}", json={"reason": reason})

    def card(self, model: str, reference: str) -> Document:
        """The model card of a version, or of what an alias points at: `markdown`, `html`."""
        return self._get(f"/models/{model}/releases/{reference}/card")

    def lineage(self, model: str) -> Document:
        """What the model's releases were made from: `nodes` and `edges`."""
        return self._get(f"/models/{model}/lineage")

    # the TUF repository

    def trust(self) -> Document:
        """Roles, keys, thresholds, versions, ends and warnings."""
        return self._get("/trust")

    def trust_metadata(self, targets: Collection[str] | None = None) -> Document:
        """What is published, signed: all, or only what these releases' targets belong to."""
        if targets is None:
            return self._get("/trust/metadata")
        return self._send("GET", "/trust/metadata", params={"target": list(targets) or [""]})

    def publish_trust(self, proposal: bytes) -> Document:
        """Publish new metadata that enough keys signed (`shoal.trust.desk`)."""
        return self._send("POST", "/trust", content=proposal, timeout=UPLOAD_TIMEOUT_SECONDS)

    # rollouts

    def rollouts(self) -> list[Document]:
        """All rollouts, newest first."""
        return self._items("/rollouts", {})

    def rollout(self, rollout: str) -> Document:
        """One rollout with its waves and gates."""
        return self._get(f"/rollouts/{rollout}")

    def executions(self, rollout: str) -> list[Document]:
        """How each device of a rollout does."""
        return self._items(f"/rollouts/{rollout}/executions", {})

    def preview_rollout(self, specification: Document) -> Document:
        """What a rollout would do: its waves, and devices that could not run the release."""
        return self._send("POST", "/rollouts/preview", json=specification)

    def create_rollout(self, specification: Document) -> Document:
        """Create a rollout (and start it unless `start` is false)."""
        return self._send("POST", "/rollouts", json=specification)

    def command_rollout(self, rollout: str, verb: str, expect: int | None = None) -> Document:
        """`verb` is start, pause, resume, promote, abort, rollback or retry.

        `expect`, with start: so many devices must match, and are planned anew.
        """
        query = _given({"expect": expect})
        return self._send("POST", f"/rollouts/{rollout}/{verb}", params=query)

    def recall_model(self, model: str) -> Document:
        """Take a model's newest release back from the whole fleet."""
        return self._send("POST", f"/rollouts/recall/{model}")

    def opt_outs(self) -> list[Document]:
        """Devices and sites that take no part in rollouts."""
        return self._items("/rollouts/opt-outs", {})

    def opt_out(self, scope: str, subject: str, reason: str = "") -> Document:
        """Leave a device or a site (`scope`) out of rollouts."""
        path = f"/rollouts/opt-outs/{scope}/{subject}"
        return self._send("PUT", path, params={"reason": reason})

    def opt_in(self, scope: str, subject: str) -> Document:
        """Take it in again."""
        return self._send("DELETE", f"/rollouts/opt-outs/{scope}/{subject}")

    def propose_rollout(self, alert: int, version: str) -> Document:
        """Draft a rollout to the devices that an alert is about; it starts nothing."""
        return self._send("POST", f"/alerts/{alert}/propose", json={"version": version})

    def approve_rollout(self, rollout: str, reason: str = "") -> Document:
        """Agree to what waits for approval: a start, or a wave."""
        return self._send("POST", f"/rollouts/{rollout}/approve", params={"reason": reason})

    def reject_rollout(self, rollout: str, reason: str) -> Document:
        """Refuse what waits for approval, and say why."""
        return self._send("POST", f"/rollouts/{rollout}/reject", params={"reason": reason})

    # selectors

    def selectors(self) -> list[Document]:
        """Saved selectors and static groups."""
        return self._items("/selectors", {})

    def preview_selector(
        self, selector: str, *, model: str | None = None, version: str | None = None
    ) -> Document:
        """Which devices match, are offline, and cannot run that release."""
        body = {"selector": selector, "model": model, "version": version}
        return self._send("POST", "/selectors/preview", json=body)

    def save_selector(
        self, name: str, selector: str, *, static: bool = False, note: str = ""
    ) -> Document:
        """Save a selector; `static` keeps the devices that match now."""
        body = {"selector": selector, "static": static, "note": note}
        return self._send("PUT", f"/selectors/{name}", json=body)

    def remove_selector(self, name: str) -> Document:
        """Forget a saved selector."""
        return self._send("DELETE", f"/selectors/{name}")

    def wait_for_rollout(
        self,
        rollout: str,
        until: Collection[str] = FINAL_STATES | {"paused"},
        timeout: float = 3600.0,
    ) -> Document:
        """Return the rollout as soon as its state is one of `until`, or final.

        Raises `WaitTimeoutError` after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            document = self.rollout(rollout)
            if document["state"] in until or document["state"] in FINAL_STATES:
                return document
            if time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"rollout {rollout}: still {document['state']} after {timeout:g} s", document
                )
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    # what happened

    def events(self, **query: str | int | None) -> list[Document]:
        """What happened in the fleet, newest first."""
        return self._items("/events", query)

    def rejections(self) -> list[Document]:
        """Invalid messages, counted by device, channel and code."""
        return self._items("/rejections", {})

    def audit(self, **query: str | int | None) -> list[Document]:
        """Who changed what, newest first; `limit`, `before`."""
        return self._items("/audit", query)

    def whole_audit(self) -> list[Document]:
        """Every row of the audit log, oldest first."""
        rows: list[Document] = []
        while page := self.audit(
            limit=TELEMETRY_PAGE_ROWS, before=rows[-1]["id"] if rows else None
        ):
            rows += page
        return rows[::-1]

    def stream(self) -> Iterator[StreamEvent]:
        """Yield changes (`fleet`, `device`, `rollout`) as they happen, until closed."""
        wait = httpx.Timeout(REQUEST_TIMEOUT_SECONDS, read=STREAM_SILENCE_SECONDS)
        try:
            with self._http.stream("GET", "/stream", timeout=wait) as response:
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                yield from parse_events(response.iter_lines())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    # people

    def users(self) -> list[Document]:
        """Everybody who can sign in with a password."""
        return self._items("/users", {})

    def add_user(self, name: str, role: str, password: str) -> Document:
        """Add a user; `role` is viewer, operator, releaser or admin."""
        return self._send("POST", "/users", json={"name": name, "role": role, "password": password})

    def change_user(self, name: str, **changes: str | bool | None) -> Document:
        """Change `role`, `password` or `disabled` of a user."""
        return self._send("PATCH", f"/users/{name}", json=_given(changes))

    def api_tokens(self) -> list[Document]:
        """API tokens without their secrets: whose, which role, when used last."""
        return self._items("/api-tokens", {})

    def create_api_token(self, name: str, **options: str | int | None) -> Document:
        """Make an API token: `role`, `expires_seconds`. Its `token` is shown only here."""
        return self._send("POST", "/api-tokens", json={"name": name} | _given(options))

    def revoke_api_token(self, token_id: str) -> Document:
        """End an API token at once."""
        return self._send("POST", f"/api-tokens/{token_id}/revoke")

    # enrolment

    def create_enrolment_token(self, **options: str | int | None) -> Document:
        """A one-time token: `token`, `token_id`, `expires_ms`. It is shown only here."""
        return self._send("POST", "/enrolment-tokens", json=_given(options))

    def enrolment_tokens(self) -> list[Document]:
        """Tokens without their secrets: which are open, used, expired."""
        return self._items("/enrolment-tokens", {})

    def admissions(self) -> list[Document]:
        """Devices without a token: who waits for an operator, and who was announced."""
        return self._items("/admissions", {})

    def preauthorise_device(self, device: str, public_key: str, **options: Any) -> Document:
        """Announce a device by its key (base64): `site`, `labels`. It comes in once."""
        body = {"device": device, "public_key": public_key} | _given(options)
        return self._send("POST", "/admissions", json=body)

    def approve_device(self, wanted: str, *, labels: Document | None = None) -> Document:
        """Let a waiting device in, by name or by the start of its fingerprint."""
        return self._send("POST", f"/admissions/{wanted}/approve", json={"labels": labels or {}})

    def reject_device(self, wanted: str) -> Document:
        """Refuse a waiting device."""
        return self._send("POST", f"/admissions/{wanted}/reject", json={"labels": {}})

    def revoke_device(self, device: str) -> Document:
        """Take a device out of the fleet and cut it off."""
        return self._send("POST", f"/devices/{device}/revoke")

    def create_sign_in_link(self) -> Document:
        """A `url` that opens the dashboard signed in as this token's owner, once."""
        return self._send("POST", "/sign-in-links")

    # transport

    def _get(self, path: str, query: dict[str, Any] | None = None) -> Document:
        return self._send("GET", path, params=_given(query or {}))

    def _items(self, path: str, query: dict[str, Any]) -> list[Document]:
        return list(self._get(path, query)["items"])

    def _pages(self, path: str, query: dict[str, Any]) -> Iterator[Document]:
        cursor: str | None = None
        while True:
            page = self._get(path, {"limit": PAGE_ROWS} | query | {"cursor": cursor})
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def _send(self, method: str, path: str, **options: Any) -> Document:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise _refusal(response)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise UnreachableError(
                f"controller {self.url}: {method} {path} gave no JSON object, is it a controller?"
            )
        return document

    def _unreachable(self, error: httpx.HTTPError) -> UnreachableError:
        detail = str(error) or type(error).__name__
        return UnreachableError(f"controller {self.url}: no answer ({detail})")


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value is not None}


def _refusal(response: httpx.Response) -> ApiError:
    """Read a problem document; anything else (a proxy's page) is named by its status alone."""
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = "http-error", f"status {response.status_code} {response.reason_phrase}"
    sentence = detail or f"status {response.status_code}"
    return ApiError(sentence, code=code, status=response.status_code)
