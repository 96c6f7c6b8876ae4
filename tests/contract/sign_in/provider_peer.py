"""A real OpenID provider, Canaille: `provider_peer.py PORT CONTROLLER_URL DATABASE_FILE`.

Knows ada (fleet-admins), eve (no group) and others (fleet-viewers), one for each test: it gives
no person two tokens within a second. Prints `ready`.
"""

from __future__ import annotations

import secrets
import sys

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from werkzeug.serving import make_server

VIEWERS = ["bob", "cid", "dan", "fay", "gil", "hal"]
PEOPLE = {"ada": ["fleet-admins"], "eve": []} | {name: ["fleet-viewers"] for name in VIEWERS}

port, controller = int(sys.argv[1]), sys.argv[2]
app = create_app(
    config={
        "SECRET_KEY": secrets.token_urlsafe(32),
        "SERVER_NAME": f"127.0.0.1:{port}",
        "PREFERRED_URL_SCHEME": "http",
        "CANAILLE": {"DATABASE": "sql", "JAVASCRIPT": False},
        "CANAILLE_SQL": {
            "DATABASE_URI": f"sqlite:///{sys.argv[3]}"
        },  # its own memory confuses codes
        "CANAILLE_OIDC": {},
    }
)
with app.app_context():
    store = Backend.instance
    store.install(app)
    members: dict[str, list[object]] = {}
    for name, groups in PEOPLE.items():
        person = models.User(
            user_name=name,
            display_name=name.title(),
            formatted_name=name.title(),
            family_name=name.title(),
            emails=[f"{name}@example.org"],
            password=f"a long password of {name}",
        )
        store.save(person)
        for group in groups:
            members.setdefault(group, []).append(person)
    for group, people in members.items():
        store.save(models.Group(display_name=group, members=people))
    client = models.Client(
        client_id="shoal",
        client_secret="secret of the client",
        client_name="Shoal",
        client_uri=controller,
        redirect_uris=[f"{controller}/sign-in/provider/done"],
        grant_types=["authorization_code"],
        response_types=["code"],
        scope=["openid", "profile", "email", "groups"],
        token_endpoint_auth_method="client_secret_basic",
    )
    store.save(client)
    client.audience = [client]
    store.save(client)
server = make_server("127.0.0.1", port, app)
print("ready", flush=True)
server.serve_forever()
