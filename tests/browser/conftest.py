"""A real fleet in front of a real browser: Debian's Chromium, three agents, a controller, a broker.

Every page is watched: an error in its console, a request to another host, or an answer that is an
error fails the test that saw it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

SCRIPTS = str(Path(__file__).resolve().parents[2] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

from demo_lib import cast, checks  # noqa: E402 - found through the line above
from local_fleet.fleet import LocalFleet  # noqa: E402

from shoal.examples import weather  # noqa: E402
from shoal.package import write_package  # noqa: E402

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_MS = 30_000
NAMES = ("ewr-edge", "jfk-pi4", cast.FAULTY_DEVICE)


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def fleet(tmp_path_factory):
    """Three devices that run release 1.0.0; release 2.0.0 is published."""
    with LocalFleet(tmp_path_factory.mktemp("fleet")) as fleet:
        specs = cast.choose_cast(cast.write_sources(fleet.folder)).specs
        first, better, _ = weather.build_releases(fleet.signer)
        fleet.start_controller()
        fleet.enrol([spec for spec in specs if spec.device in NAMES])
        fleet.start_agents()
        for package in (first, better):
            path = fleet.folder / f"{package.manifest.version}.shoal"
            write_package(package, path)
            fleet.release(path)
        roll_out(fleet, "1.0.0", [{"name": "all", "share": 1.0}], soak_seconds=0)
        fleet.wait_for(lambda: _all_run(fleet, "1.0.0") or None, 60, "release 1.0.0 runs")
        yield fleet


def roll_out(fleet, version, waves, **options):
    """Create a rollout and return its name."""
    wanted = {"model": weather.MODEL, "version": version, "waves": waves, "probation_seconds": 1.0}
    return fleet.client.create_rollout(wanted | options)["rollout"]


def _all_run(fleet, version):
    windows = {name: fleet.client.windows(name, limit=50) for name in NAMES}
    devices = list(fleet.client.devices())
    return not checks.unready_devices(
        devices, NAMES, weather.MODEL, version
    ) and not checks.silent_devices(windows, 1)


@pytest.fixture(scope="module")
def chromium():
    """Ends with its module: while it runs, no asynchronous test can."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Watch:
    """What a page did that it must not."""

    def __init__(self, home):
        self.home = home
        self.faults = []

    def follow(self, page):
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _request(self, request):
        if not request.url.startswith((self.home, "data:")):
            self.faults.append(f"request to another host: {request.url}")

    def _response(self, response):
        if response.status >= 400:
            self.faults.append(f"{response.status}: {response.url}")


@pytest.fixture
def new_page(fleet, chromium):
    """Open pages in browsers of their own; none may have done what it must not."""
    contexts, watch = [], Watch(fleet.url)

    def opened(**options):
        context = chromium.new_context(base_url=fleet.url, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        watch.follow(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert watch.faults == []


@pytest.fixture
def page(new_page):
    """A page of somebody who may look."""
    return new_page()


@pytest.fixture
def operator(fleet, new_page):
    """A page of somebody who signed in by the link that the demo prints."""
    page = new_page()
    page.goto(fleet.sign_in_url())
    page.get_by_role("button", name="Sign out").wait_for()
    return page


@pytest.fixture
def rollout(fleet):
    """A rollout of release 2.0.0 that stays where it is, whatever devices of a busy machine do."""
    waves = [{"name": "canary", "devices": 1}, {"name": "100 %", "share": 1.0}]
    patient = {"soak_seconds": 3600, "max_failed_ratio": 1.0, "min_reached_ratio": 0.0}
    name = roll_out(fleet, "2.0.0", waves, **patient)
    yield name
    if "abort" in fleet.client.rollout(name)["verbs"]:
        fleet.client.command_rollout(name, "abort")
    fleet.client.wait_for_rollout(name, timeout=60)
