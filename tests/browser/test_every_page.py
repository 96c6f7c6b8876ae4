"""What holds for every page: accessible in both themes, with a JSON twin, alive below a prefix."""

from __future__ import annotations

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from .conftest import PATIENCE_MS
from .everything import PAGES, happen, open_services
from .proxy import second_process

expect.set_options(timeout=PATIENCE_MS)
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}
TOO_WIDE = """new Promise((tell) => requestAnimationFrame(() => requestAnimationFrame(
  () => tell(document.documentElement.scrollWidth > innerWidth))))"""
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RULES = {
    "light": {"runOnly": TAGS},
    "dark": {"runOnly": {"type": "rule", "values": ["color-contrast"]}},  # all that differs
}


@pytest.fixture(scope="module", autouse=True)
def history(fleet):
    services = open_services(fleet.controller.config)
    happen(services)
    services.engine.dispose()


def test_every_page_passes_axe_in_both_themes_and_fits_a_phone(operator, rollout):
    axe, found = Axe(), []
    for path in PAGES:
        operator.set_viewport_size(WIDE)
        operator.goto(path.format(rollout=rollout))
        for scheme, rules in RULES.items():
            operator.emulate_media(color_scheme=scheme)
            for one in axe.run(operator, options=rules).response["violations"]:
                targets = [node["target"] for node in one["nodes"]][:3]
                found.append(f"{path} {scheme}: {one['id']}: {one['help']} {targets}")
        operator.set_viewport_size(NARROW)
        if operator.evaluate(TOO_WIDE):
            found.append(f"{path}: wider than a phone")
    assert found == []


def test_every_page_has_one_json_twin_by_address_and_by_header(operator, rollout):
    for path in PAGES:
        operator.goto(path.format(rollout=rollout))
        twin = operator.locator('link[rel="alternate"][type="application/json"]')
        by_address = operator.request.get(twin.get_attribute("href"))
        by_header = operator.request.get(
            path.format(rollout=rollout), headers={"accept": "application/json"}
        )
        for answer in (by_address, by_header):
            assert answer.headers["content-type"] == "application/json", path
            assert answer.headers["vary"] == "accept"
        assert set(by_address.json()) == set(by_header.json()), path
        assert by_address.json()["page"] == path.format(rollout=rollout).partition("?")[0]
        assert "csrf" not in json.dumps(by_header.json())


def test_drift_page_says_what_drifted_since_when_and_links_device_and_alert(page):
    page.goto("/drift")
    row = page.locator("#of-sites").get_by_role("row", name=re.compile("lga.*pressure"))
    expect(row).to_contain_text(re.compile(r"drifting since .* ago"))
    expect(row).to_contain_text("148 %")
    expect(row.get_by_role("img")).to_have_attribute("aria-label", re.compile("1.48, limit 1"))
    expect(row.get_by_role("link", name="lga-zero")).to_be_visible()
    row.get_by_role("link", name=re.compile("alert")).click()
    expect(page).to_have_url(re.compile("/alerts"))
    expect(page.locator("main")).to_contain_text("weather pressure of lga-zero")


def test_audit_page_filters_in_the_address_and_exports_what_it_shows(operator):
    operator.goto("/audit")
    expect(operator.locator("#chain")).to_contain_text("The chain of hashes holds")
    operator.get_by_label("What was done").fill("rollout")
    operator.get_by_role("button", name="Filter").click()
    expect(operator).to_have_url(re.compile("action=rollout"))
    shown = operator.locator("tbody tr").count()
    export = operator.get_by_role("link", name="Export as NDJSON").get_attribute("href")
    rows = [json.loads(line) for line in operator.request.get(export).text().splitlines()]
    assert len(rows) == shown > 0
    assert {row["action"].partition(".")[0] for row in rows} == {"rollout"}


def test_keys_go_to_pages_and_to_the_search(operator):
    operator.goto("/")
    operator.keyboard.press("/")
    expect(operator.get_by_label("Name contains")).to_be_focused()
    operator.keyboard.press("Escape")
    operator.locator("body").evaluate("document.activeElement.blur()")
    operator.keyboard.press("?")
    expect(operator.get_by_role("dialog", name="Keys")).to_contain_text("Drift")
    operator.keyboard.press("Escape")
    operator.keyboard.press("g")
    operator.keyboard.press("d")
    expect(operator.get_by_role("heading", level=1)).to_contain_text("Drift")


def test_tabs_without_shared_workers_take_turns_with_one_connection(new_page):
    first = new_page()
    context = first.context
    context.add_init_script("delete window.SharedWorker")
    streams = []
    context.on("request", lambda one: streams.append(one) if "/stream" in one.url else None)
    first.goto("/")
    second = context.new_page()
    second.goto("/rollouts")
    for tab in (first, second):
        expect(tab.locator("#live")).to_have_text("live")
    assert [one.frame.page for one in streams] == [first]
    with context.expect_event("request", lambda one: "/stream" in one.url):
        first.close()
    expect(second.locator("#live")).to_have_text("live")


@pytest.mark.parametrize("keeps", [True, False], ids=["proxy keeps", "proxy strips"])
def test_dashboard_works_below_the_prefix_of_a_reverse_proxy(fleet, chromium, keeps):
    with second_process(fleet.controller.config, "/shoal", keeps=keeps) as home:
        context = chromium.new_context(base_url=home)
        page, strays = context.new_page(), []
        page.on(
            "response",
            lambda one: (
                strays.append(f"{one.status} {one.url}")
                if one.status >= 400 or not one.url.startswith((f"{home}/shoal/", "data:"))
                else None
            ),
        )
        page.goto("/shoal/")
        expect(page.locator("#live")).to_have_text("live")
        page.get_by_role("rowheader", name="jfk-pi4").get_by_role("link").click()
        expect(page.locator("figure[data-chart=latency] canvas")).to_be_visible()
        page.get_by_role("link", name="This page as JSON").click()
        expect(page.locator("body")).to_contain_text('"page":"/devices/jfk-pi4"')
        context.close()
        assert strays == []
