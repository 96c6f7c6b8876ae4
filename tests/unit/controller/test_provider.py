"""A provider that lies, or is not the one: nothing but its signed word for us is believed."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from urllib.parse import parse_qs

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from controller.config import OidcSettings, load_settings
from controller.errors import UnauthenticatedError, UnavailableError
from controller.people.begun import Begun, open_begun, seal_begun
from controller.people.provided import role_for
from controller.people.provider import Provider, read_claims
from shoal.errors import InvalidInputError, ShoalError

KEY = ECKey.generate_key("P-256", auto_kid=True)
OTHER = ECKey.generate_key("P-256", auto_kid=True)
REDIRECT = "http://127.0.0.1:1/sign-in/provider/done"


class Liar:
    """An HTTP server on this machine that answers as it is told."""

    def __init__(self):
        liar = self
        self.asked = []
        self.id_token = None
        self.issuer = None

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path.endswith("openid-configuration"):
                    self._say(
                        {
                            "issuer": liar.issuer or liar.url,
                            "authorization_endpoint": f"{liar.url}/authorize",
                            "token_endpoint": f"{liar.url}/token",
                            "jwks_uri": f"{liar.url}/keys",
                        }
                    )
                else:
                    self._say({"keys": [KEY.as_dict(private=False)]})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                liar.asked.append(parse_qs(body))
                token = {"access_token": "a", "token_type": "Bearer"}
                self._say(token | ({"id_token": liar.id_token} if liar.id_token else {}))

            def _say(self, document):
                data = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def liar():
    found = Liar()
    yield found
    found.close()


@pytest.fixture
def provider(liar):
    return Provider(OidcSettings(issuer=liar.url), "secret of the client")


def _claims(liar, begun, **changes):
    now = int(time.time())
    claims = {
        "iss": liar.url, "aud": "shoal", "sub": "1", "preferred_username": "ada", "groups": ["x"],
        "iat": now, "exp": now + 60, "nonce": begun.nonce,
    }  # fmt: skip
    return {key: value for key, value in (claims | changes).items() if value is not None}


def _sign(claims, key=KEY, algorithm="ES256"):
    return jwt.encode({"alg": algorithm, "kid": KEY.kid}, claims, key, algorithms=[algorithm])


def _part(document):
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def test_a_true_word_is_believed(liar, provider):
    url, begun = provider.begin(REDIRECT, "/", 0)
    assert url.startswith(f"{liar.url}/authorize?")
    liar.id_token = _sign(_claims(liar, begun, preferred_username="Ada"))
    found = provider.finish(REDIRECT, begun, {"state": begun.state, "code": "c"})
    assert (found.subject, found.name, found.groups) == ("1", "ada", ["x"])
    assert liar.asked[0]["code_verifier"] == [begun.verifier]


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "another client"},
        {"aud": ["another client", "shoal"], "azp": "another client"},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"iat": None},
        {"iat": int(time.time()) + 3600},
        {"sub": None},
        {"preferred_username": None},
        {"preferred_username": 7},
        {"groups": [1]},
        {"groups": {"x": 1}},
    ],
)
def test_a_token_that_is_not_for_this_sign_in_is_refused(liar, provider, changes):
    _, begun = provider.begin(REDIRECT, "/", 0)
    liar.id_token = _sign(_claims(liar, begun, **changes))
    with pytest.raises(UnauthenticatedError):
        provider.finish(REDIRECT, begun, {"state": begun.state, "code": "c"})


def test_a_token_with_another_signature_or_none_is_refused(liar, provider):
    _, begun = provider.begin(REDIRECT, "/", 0)
    claims = _claims(liar, begun)
    secret = OctKey.import_key("secret of the client, which an attacker may guess")
    head, body, _ = _sign(claims).split(".")
    unsigned = f"{_part({'alg': 'none'})}.{body}."
    emptied = f"{head}.{body}."
    for text in (
        _sign(claims, OTHER),
        _sign(claims, secret, "HS256"),
        unsigned,
        emptied,
        "no token",
        "",
    ):
        liar.id_token = text
        with pytest.raises(UnauthenticatedError, match=r"does not hold|no ID token"):
            provider.finish(REDIRECT, begun, {"state": begun.state, "code": "c"})


@pytest.mark.parametrize(
    "answer",
    [{}, {"state": "another", "code": "c"}, {"state": "", "error": "x"}],
)
def test_the_answer_to_another_question_is_refused_unasked(liar, provider, answer):
    _, begun = provider.begin(REDIRECT, "/", 0)
    with pytest.raises(UnauthenticatedError, match="another sign-in"):
        provider.finish(REDIRECT, begun, answer)
    assert liar.asked == []


def test_an_answer_of_another_provider_is_refused_unasked(liar, provider):
    _, begun = provider.begin(REDIRECT, "/", 0)
    answer = {"state": begun.state, "code": "c", "iss": "https://elsewhere.example"}
    with pytest.raises(UnauthenticatedError, match="another provider"):
        provider.finish(REDIRECT, begun, answer)
    assert liar.asked == []


def test_a_provider_that_refuses_is_quoted(provider):
    _, begun = provider.begin(REDIRECT, "/", 0)
    answer = {"state": begun.state, "error": "access_denied", "error_description": "not today"}
    with pytest.raises(UnauthenticatedError, match="OpenID says: not today"):
        provider.finish(REDIRECT, begun, answer)


def test_a_provider_of_another_name_or_out_of_reach_is_told(liar):
    liar.issuer = "https://elsewhere.example"
    with pytest.raises(UnavailableError, match="expected issuer"):
        Provider(OidcSettings(issuer=liar.url), "s").begin(REDIRECT, "/", 0)
    with pytest.raises(UnavailableError, match="sign in: Site"):
        Provider(OidcSettings(issuer="http://127.0.0.1:9", name="Site"), "s").begin(
            REDIRECT, "/", 0
        )


def test_what_lies_in_the_browser_cannot_be_made_or_kept_there():
    begun = Begun("state", "nonce", "verifier", "/", 1000)
    text = seal_begun(begun, b"key")
    assert open_begun(text, b"key", 999) == begun
    for bad, key, now in ((text, b"key", 1000), (text, b"other", 0), ("", b"key", 0), ("é", b"", 0),
                          (text[:-4] + "AAAA", b"key", 0)):  # fmt: skip
        with pytest.raises(UnauthenticatedError, match="try again"):
            open_begun(bad, key, now)


def test_the_highest_role_of_all_groups_counts():
    settings = OidcSettings(roles={"ops": "operator", "all": "viewer"}, default_role="")
    assert role_for(settings, ["all", "ops", "unknown"]) == "operator"
    assert role_for(settings, ["unknown"]) == ""
    assert read_claims(
        settings, {"iss": "i", "sub": "1", "preferred_username": "A", "groups": "all"}
    ).groups == ["all"]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ('issuer = "http://elsewhere.example"\nclient_secret_file = "s"', "expected https://"),
        ('issuer = "https://site.example"', "client_secret_file: is missing"),
        ('[oidc.roles]\nops = "king"', "oidc.roles.ops: 'king' is none of"),
        ('default_role = "none"', "oidc.default_role: 'none' is none of"),
        ('roles = "admin"', "expected a table of group = role"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, table, problem):
    path = tmp_path / "controller.toml"
    path.write_text(f"[oidc]\n{table}\n")
    with pytest.raises((InvalidInputError, ShoalError), match=problem.replace("[", r"\[")):
        load_settings(path)
