"""What pages show, to whom, and what they are allowed to load."""

from __future__ import annotations

import re

import pytest

from controller.database import writing
from controller.drift import alerts
from controller.web import assets

from .conftest import csrf_of, sign_in

PAGES = ["/", "/rollouts", "/models", "/drift", "/alerts", "/devices/gw-1"]
JSON = {"headers": {"accept": "application/json"}}
INLINE = re.compile(r"<style|\sstyle=|\son[a-z]+=\"|<script(?![^>]*\ssrc=)", re.I)


@pytest.mark.parametrize("path", [*PAGES, "/sign-in"])
async def test_page_has_nothing_inline_and_a_policy_that_forbids_it(site, add_devices, path):
    add_devices([("gw-1", "north", "ok")])
    async with site.browser() as browser:
        answer = await browser.get(path)
        assert answer.status_code == 200
        assert not INLINE.search(answer.text)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_links_its_json_twin(site, add_devices, path):
    add_devices([("gw-1", "north", "ok")])
    async with site.browser() as browser:
        page = await browser.get(path)
        twin = re.search(r'rel="alternate" type="application/json" href="([^"]+)"', page.text)[1]
        answer = await browser.get(twin.replace("&amp;", "&"))
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["page"] == path


async def test_refusal_of_a_twin_is_a_problem_document(site):
    async with site.browser() as browser:
        for path, more in (("/devices/nobody.json", {}), ("/devices/nobody", JSON)):
            answer = await browser.get(path, **more)
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
        site.people("none")
        assert (await browser.get("/drift.json")).status_code == 401


@pytest.mark.parametrize("query", ["since=yesterday", "before=x", "before=-1"])
async def test_audit_page_says_what_is_wrong_with_its_address(site, query):
    async with site.browser() as browser:
        await sign_in(browser, site.token)
        answer = await browser.get(f"/audit?{query}")
        assert answer.status_code == 422
        assert query.partition("=")[0] in answer.text


async def test_everything_is_below_the_prefix_of_a_proxy(site, add_devices):
    site.people(root_path="/shoal")
    add_devices([("gw-1", "north", "ok")])
    async with site.browser() as browser:
        for path in ("/shoal/", "/"):  # proxies that keep the prefix, and that take it off
            page = await browser.get(path)
            links = re.findall(r'(?:href|src|action|hx-get|data-stream)="([^"#]+)', page.text)
            assert links
            assert all(link.startswith("/shoal/") for link in links if link[0] == "/")
        script = next(link for link in links if link.endswith("app.js"))
        for path in (script, script.removeprefix("/shoal")):
            assert (await browser.get(path)).status_code == 200
        answer = await sign_in(browser, site.token, "/shoal")
        assert answer.headers["location"] == "/shoal/"
        assert "Path=/shoal" in answer.headers["set-cookie"]


async def test_people_who_may_not_look_are_asked_to_sign_in(site):
    site.people("none")
    async with site.browser() as browser:
        answer = await browser.get("/rollouts")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/sign-in?next=%2Frollouts"
        assert (await browser.get("/?part=live_map")).status_code == 401
        assert (await browser.get("/api/v1/devices")).status_code == 401


async def test_viewer_sees_no_buttons_and_may_not_press_them(site, add_devices):
    add_devices([("gw-1", "north", "ok")])
    async with site.browser() as browser:
        page = await browser.get("/devices/gw-1")
        assert "Revoke" not in page.text
        form = {"csrf": csrf_of(await browser.get("/sign-in"))}
        answer = await browser.post("/devices/gw-1/revoke", data=form)
        assert answer.headers["location"].startswith("/sign-in")
        device = (await browser.get("/api/v1/devices/gw-1")).json()
        assert device["revoked_ms"] is None


async def test_operator_revokes_a_device_from_its_page(site, add_devices):
    add_devices([("gw-1", "north", "ok")])
    async with site.browser() as browser:
        await sign_in(browser, site.token)
        page = await browser.get("/devices/gw-1")
        answer = await browser.post("/devices/gw-1/revoke", data={"csrf": csrf_of(page)})
        assert answer.status_code == 303
        assert "revoked" in (await browser.get("/devices/gw-1")).text


async def test_operator_acknowledges_an_alert_from_its_page(site, add_devices):
    add_devices([("gw-1", "north", "ok")])
    found = {
        "scope": "device", "subject": "gw-1", "model": "pump", "family": "inputs",
        "field": "flow", "kind": "mean", "sentence": "flow of gw-1 fell", "evidence": {},
        "started_ms": site.services.now_ms(),
    }  # fmt: skip
    with writing(site.services.engine) as connection:
        number = alerts.open_alert(connection, found, site.services.now_ms())
    async with site.browser() as browser:
        await sign_in(browser, site.token)
        assert "flow of gw-1 fell" in (await browser.get("/devices/gw-1")).text
        page = await browser.get("/alerts")
        form = {"csrf": csrf_of(page)}
        answer = await browser.post(f"/alerts/{number}/acknowledge", data=form)
        assert answer.status_code == 303
        assert "seen by operator" in (await browser.get("/alerts")).text


async def test_filter_and_page_of_the_table_are_in_the_address(site, add_devices):
    add_devices([(f"gw-{i:03}", "north" if i % 2 else "south", "ok") for i in range(130)])
    async with site.browser() as browser:
        page = await browser.get("/?site=north")
        seen = re.findall(r'id="d-(gw-\d+)"', page.text)
        assert seen == [f"gw-{i:03}" for i in range(1, 100, 2)]
        following = re.search(r'href="([^"#]+)#devices" rel="next"', page.text)[1]
        page = await browser.get(following.replace("&amp;", "&"))
        assert re.findall(r'id="d-(gw-\d+)"', page.text) == [
            f"gw-{i:03}" for i in range(101, 130, 2)
        ]


async def test_refusal_is_a_page_for_people_and_a_problem_for_programs(site):
    async with site.browser() as browser:
        page = await browser.get("/devices/nobody")
        assert page.status_code == 404
        assert "<h1>Not found" in page.text
        page = await browser.get("/nowhere", headers={"accept": "text/html"})
        assert "<h1>Not found" in page.text
        answer = await browser.get("/api/v1/nowhere", headers={"accept": "text/html"})
        assert answer.headers["content-type"] == "application/problem+json"


async def test_names_from_devices_are_text_and_never_markup(site, add_devices):
    add_devices([("gw-1", "north", "ok")])
    async with site.browser() as browser:
        page = await browser.get("/", params={"q": '"><script>alert(1)</script>'})
        assert "<script>alert" not in page.text


MANY = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)
INSERT INTO devices (device, site, profile, labels, facts, health, public_key, enrolled_ms, online,
  last_seen_ms, status, reason, boot_id, state_ms, state_seq, agent_version, clock_synced,
  reported_desired_sequence)
SELECT printf('gw-%06d', i), printf('site-%03d', i % 200), '', '{}', '{}', '{}', x'00', 1, 1, ?,
  CASE WHEN i % 200 = 0 THEN 'failing' WHEN i % 19 = 0 THEN 'degraded' ELSE 'ok' END,
  '', '', 0, 0, '', 1, 0 FROM n
"""


async def test_hundred_thousand_devices_fit_in_a_page(site):
    with writing(site.services.engine) as connection:
        connection.exec_driver_sql(MANY, (site.services.now_ms(),))
    async with site.browser() as browser:
        page = await browser.get("/")
        assert len(page.content) < 400_000
        assert "100,000 devices" in page.text
        first = re.search(r'class="site-name"[^>]*title="([^"]+)"', page.text)[1]
        assert first == "site-000: 500 devices, 500 failing"


def test_asset_has_a_new_name_when_it_changes_and_only_assets_are_served():
    assert re.fullmatch(r"/static/[0-9a-f]{12}/app\.css", assets.url("app.css"))


@pytest.mark.parametrize("name", ["vendor/VERSIONS.md", "%2e%2e/auth.py", "vendor"])
async def test_nothing_but_assets_is_served(site, name):
    async with site.browser() as browser:
        assert (await browser.get(f"/static/x/{name}")).status_code == 404
