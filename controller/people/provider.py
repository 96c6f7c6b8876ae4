"""An OpenID provider that says who people are: OpenID Connect Core 1.0, authorization code flow.

With state, nonce and PKCE (RFC 7636, S256). What the provider says is believed only from an ID
token that it has signed for us: issuer, audience, times and nonce are checked, and the
signature's algorithm is one of a short list, never `none`.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import msgspec
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from msgspec import Struct

from controller.config import LOOPBACK, OidcSettings
from controller.errors import UnauthenticatedError, UnavailableError
from controller.people.begun import BEGUN_SECONDS, MAX_PART, Begun, Claims
from shoal.errors import InvalidInputError

ALGORITHMS = [
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
]
"""Public keys only: neither `none` nor a secret that could be guessed."""
TIMEOUT_SECONDS = 10.0
REMEMBER_SECONDS = 3600.0
LEEWAY_SECONDS = 60


class _Endpoints(Struct, frozen=True):
    """Of the provider's discovery document."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class Provider:
    """One provider, asked over HTTPS. Blocks; used from threads."""

    def __init__(self, settings: OidcSettings, secret: str, transport: Any = None) -> None:
        self._settings = settings
        self._secret = secret
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, transport=transport)
        self._lock = threading.Lock()
        self._endpoints: _Endpoints | None = None
        self._keys: KeySet | None = None
        self._asked = 0.0

    def begin(self, redirect_uri: str, goal: str, now_ms: int) -> tuple[str, Begun]:
        """Where to send the browser, and what to remember of it."""
        endpoints = self._discover()
        begun = Begun(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            goal=goal,
            expires_ms=now_ms + BEGUN_SECONDS * 1000,
        )
        with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                endpoints.authorization_endpoint,
                state=begun.state,
                nonce=begun.nonce,
                code_verifier=begun.verifier,
            )
        return str(url), begun

    def finish(self, redirect_uri: str, begun: Begun, answer: Mapping[str, str]) -> Claims:
        """Who came back, or raise `UnauthenticatedError` saying what does not hold."""
        if not hmac.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            raise UnauthenticatedError("sign in: this answer belongs to another sign-in; try again")
        if "error" in answer:
            words = answer.get("error_description") or answer["error"]
            raise UnauthenticatedError(f"sign in: {self._settings.name} says: {words[:200]}")
        endpoints = self._discover()
        if answer.get("iss", endpoints.issuer) != endpoints.issuer:  # RFC 9207
            raise UnauthenticatedError("sign in: this answer is of another provider")
        try:
            with self._client(redirect_uri) as client:
                token = client.fetch_token(
                    endpoints.token_endpoint,
                    grant_type="authorization_code",
                    code=answer.get("code", "")[:MAX_PART],
                    code_verifier=begun.verifier,
                )
        except OAuthError as error:
            raise UnauthenticatedError(
                f"sign in: {self._settings.name} refuses: {str(error)[:200]}"
            ) from error
        except (httpx.HTTPError, ValueError) as error:
            raise self._unreachable(endpoints.token_endpoint, error) from error
        return self._claims(token, begun, endpoints)

    def _claims(self, token: dict[str, Any], begun: Begun, endpoints: _Endpoints) -> Claims:
        text = token.get("id_token")
        if not isinstance(text, str):
            raise UnauthenticatedError(f"sign in: {self._settings.name} sent no ID token")
        try:
            decoded = self._decode(text)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {
                    "iss": {"essential": True, "value": endpoints.issuer},
                    "aud": {"essential": True, "value": self._settings.client_id},
                },
                {
                    "nonce": begun.nonce,
                    "client_id": self._settings.client_id,
                    "access_token": token.get("access_token"),
                },
            )
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError) as error:
            raise UnauthenticatedError(
                f"sign in: the ID token of {self._settings.name} does not hold: {error}"
            ) from error
        return read_claims(self._settings, claims)

    def _decode(self, text: str) -> jwt.Token:
        """Verify with the keys at hand; a key that is not among them may be a new one."""
        try:
            return jwt.decode(text, self._key_set(fresh=False), algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            return jwt.decode(text, self._key_set(fresh=True), algorithms=ALGORITHMS)

    def _client(self, redirect_uri: str) -> OAuth2Client:
        return OAuth2Client(
            client_id=self._settings.client_id,
            client_secret=self._secret,
            scope=self._settings.scope,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=TIMEOUT_SECONDS,
        )

    def _discover(self) -> _Endpoints:
        with self._lock:
            if self._endpoints is None or time.monotonic() - self._asked > REMEMBER_SECONDS:
                issuer = self._settings.issuer
                url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
                found = self._get(url, _Endpoints)
                if found.issuer != issuer:
                    raise UnavailableError(
                        f"{url}: expected issuer {issuer}, got {found.issuer[:200]}",
                        code="wrong-issuer",
                    )
                for each in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
                    check_url("provider", each)
                self._endpoints, self._asked = found, time.monotonic()
            return self._endpoints

    def _key_set(self, *, fresh: bool) -> KeySet:
        endpoints = self._discover()
        with self._lock:
            if self._keys is None or fresh:
                self._keys = KeySet.import_key_set(self._get(endpoints.jwks_uri, dict))
            return self._keys

    def _get(self, url: str, kind: Any) -> Any:
        try:
            response = self._http.get(url)
            response.raise_for_status()
            return msgspec.json.decode(response.content, type=kind)
        except (httpx.HTTPError, ValueError) as error:
            raise self._unreachable(url, error) from error

    def _unreachable(self, url: str, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"sign in: {self._settings.name}: {url}: {str(error)[:200]}", code="provider-failed"
        )


def read_claims(settings: OidcSettings, claims: Mapping[str, Any]) -> Claims:
    """A person out of an ID token's claims; raises where it names nobody."""
    name, subject = claims.get(settings.name_claim), claims.get("sub")
    if not isinstance(name, str) or not isinstance(subject, str) or not name or not subject:
        raise UnauthenticatedError(
            f"sign in: the ID token of {settings.name} has no {settings.name_claim!r}"
        )
    groups = claims.get(settings.groups_claim) or []
    listed = [groups] if isinstance(groups, str) else groups
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise UnauthenticatedError(
            f"sign in: {settings.groups_claim!r} of {settings.name} is not a list of names"
        )
    return Claims(str(claims["iss"]), subject, name.lower(), listed)


def check_url(what: str, url: str) -> None:
    """Refuse a provider that is not reached by HTTPS; one on this machine may do without."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise InvalidInputError(f"{what} {url[:200]!r}: expected https://…")
