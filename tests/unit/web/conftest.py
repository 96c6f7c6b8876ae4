"""A real web application on a real database, without a broker and without a network."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import httpx
import pytest

from controller.app import build_app, build_services
from controller.config import WebSettings, load_settings
from controller.database import writing
from controller.schema import device_models, devices
from controller.setup import initialise

ORIGIN = {"origin": "http://testserver"}


@dataclass
class Site:
    """An application with its services and the operator's token."""

    services: object
    token: str

    def browser(self, **options):
        transport = httpx.ASGITransport(build_app(self.services))
        options = {"base_url": "http://testserver", "headers": ORIGIN} | options
        return httpx.AsyncClient(transport=transport, **options)

    def people(self, anonymous="viewer", root_path=""):
        """What people without a token may do, and below which path all is served."""
        web = WebSettings(anonymous=anonymous, root_path=root_path)
        self.services.settings = replace(self.services.settings, web=web)


def csrf_of(response):
    """The token of the first form of a page."""
    return re.search(r'name="csrf" value="([^"]+)"', response.text)[1]


async def sign_in(browser, token, prefix=""):
    """Go through the sign-in page."""
    page = await browser.get(f"{prefix}/sign-in")
    return await browser.post(f"{prefix}/sign-in", data={"token": token, "csrf": csrf_of(page)})


@pytest.fixture
def site(tmp_path):
    config = tmp_path / "controller.toml"
    config.write_text("")
    settings = load_settings(config)
    initialise(settings)
    services = build_services(settings)
    yield Site(services, settings.token_file.read_text().strip())
    services.engine.dispose()


@pytest.fixture
def add_devices(site):
    """Put devices into the database, as enrolment and ingest would have."""

    def add(rows):
        rows = list(rows)
        now = site.services.now_ms()
        with writing(site.services.engine) as connection:
            connection.execute(
                devices.insert(),
                [
                    {
                        "device": device,
                        "site": place,
                        "profile": "x86-64-gateway",
                        "labels": {},
                        "facts": {},
                        "health": {},
                        "public_key": b"k" * 32,
                        "enrolled_ms": now,
                        "online": True,
                        "last_seen_ms": now,
                        "status": status,
                    }
                    for device, place, status in rows
                ],
            )
            connection.execute(
                device_models.insert(),
                [
                    {"device": device, "model": "pump", "active_version": "1.0.0"}
                    for device, _, _ in rows
                ],
            )

    return add
