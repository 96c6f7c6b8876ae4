"""Builds the web application out of its services: the one place where routes come together."""

from __future__ import annotations

import time
from typing import Any

from fastapi import Depends, FastAPI

from controller.api import (
    alerts,
    commands,
    drift,
    enrolment,
    fleet,
    health,
    metrics,
    people,
    problems,
    registry,
    releases,
    rollouts,
    selectors,
    stream,
    trust,
)
from controller.artifacts import Artifacts
from controller.auth import authorise
from controller.config import Settings
from controller.database import create_tables, open_engine, reading
from controller.identity.identities import load_identities
from controller.metrics.requests import CountRequests
from controller.people import tokens
from controller.repository.director_key import load_director
from controller.repository.keyring import Keyring
from controller.secret import load_secret
from controller.services import Services
from controller.web import pages
from shoal import __version__
from shoal.errors import InvalidInputError

API = "/api/v1"


def build_services(settings: Settings) -> Services:
    """Open the database and the keys that `init` made."""
    engine = open_engine(settings.database_url)
    create_tables(engine)
    tokens.adopt_old(engine, time.time_ns() // 1_000_000)
    artifacts, keyring = Artifacts(settings.files_dir), Keyring(settings.keys_dir)
    with reading(engine) as connection:
        director = load_director(connection, artifacts, keyring)
    return Services(
        settings=settings,
        engine=engine,
        director=director,
        broker_secret=load_secret(settings),
        artifacts=artifacts,
        keyring=keyring,
        identities=load_identities(settings),
        provider=_open_provider(settings) if settings.oidc.issuer else None,
    )


def _open_provider(settings: Settings) -> Any:
    from controller.people.provider import Provider

    path = settings.path.parent / settings.oidc.client_secret_file
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"oidc.client_secret_file {path}: {error}") from error
    return Provider(settings.oidc, secret)


def build_app(services: Services) -> FastAPI:
    """The application; everything it needs is in `services`."""
    app = FastAPI(
        title="Shoal controller",
        version=__version__,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
        dependencies=[Depends(authorise)],
    )
    app.state.services = services
    problems.install(app)
    for module in (
        health,
        commands,
        drift,
        fleet,
        releases,
        registry,
        rollouts,
        enrolment,
        alerts,
        people,
        selectors,
        stream,
        trust,
    ):
        app.include_router(module.router, prefix=API)
    app.include_router(metrics.router)
    app.include_router(releases.repository)
    app.include_router(trust.repository)
    app.add_middleware(CountRequests)  # innermost: it sees the route
    pages.install(app)
    return app
