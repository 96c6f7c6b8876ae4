"""Signing in with a token or a link, and what a session is worth to another site's page."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from controller.database import writing
from controller.schema import browser_sessions, one_time_links

from .conftest import csrf_of, sign_in


async def test_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(site):
    async with site.browser() as browser:
        answer = await sign_in(browser, site.token)
        cookie = answer.headers["set-cookie"].lower()
        assert answer.status_code == 303
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert site.token.lower() not in cookie
        assert "operator" in (await browser.get("/")).text


async def test_cookie_is_secure_where_the_fleet_is_served_with_tls(site):
    async with site.browser(base_url="https://testserver", headers={}) as browser:
        assert "secure" in (await browser.get("/sign-in")).headers["set-cookie"].lower()


async def test_unknown_token_is_refused_in_words_and_signs_nobody_in(site):
    async with site.browser() as browser:
        answer = await sign_in(browser, "not-a-token")
        assert answer.status_code == 401
        assert "the token is not known" in answer.text
        assert "shoal-session" not in browser.cookies


async def test_form_without_its_token_is_refused(site):
    async with site.browser() as browser:
        await browser.get("/sign-in")
        answer = await browser.post("/sign-in", data={"token": site.token})
        assert answer.status_code == 403
        assert "shoal-session" not in browser.cookies


async def test_form_token_of_another_visitor_is_refused(site):
    async with site.browser() as attacker, site.browser() as victim:
        theirs = csrf_of(await attacker.get("/sign-in"))
        await victim.get("/sign-in")
        answer = await victim.post("/sign-in", data={"token": site.token, "csrf": theirs})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "origin": "http://elsewhere.example"},
        {"sec-fetch-site": "same-site", "origin": "http://other.testserver"},
        {"origin": "null"},
        {},
    ],
)
async def test_session_changes_nothing_for_a_page_of_another_site(site, headers):
    async with site.browser() as browser:
        await sign_in(browser, site.token)
        del browser.headers["origin"]
        answer = await browser.post("/api/v1/enrolment-tokens", json={}, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["code"] == "cross-site"


async def test_session_may_use_the_api_from_our_own_pages(site):
    async with site.browser() as browser:
        await sign_in(browser, site.token)
        answer = await browser.post("/api/v1/enrolment-tokens", json={})
        assert answer.status_code == 201


async def test_signing_out_ends_the_session_on_the_server(site):
    async with site.browser() as browser:
        await sign_in(browser, site.token)
        secret = browser.cookies["shoal-session"]
        page = await browser.get("/")
        await browser.post("/sign-in/out", data={"csrf": csrf_of(page)})
        browser.cookies.set("shoal-session", secret)
        answer = await browser.post("/api/v1/enrolment-tokens", json={})
        assert answer.status_code == 401


async def test_session_ends_when_its_time_is_over(site):
    async with site.browser() as browser:
        await sign_in(browser, site.token)
        with writing(site.services.engine) as connection:
            connection.execute(update(browser_sessions).values(expires_ms=1))
        assert (await browser.post("/api/v1/enrolment-tokens", json={})).status_code == 401


async def _link(browser, token):
    answer = await browser.post(
        "/api/v1/sign-in-links", headers={"authorization": f"Bearer {token}"}
    )
    return answer.json()["url"].partition("/sign-in/")[2]


async def test_link_signs_in_once_and_looking_at_it_does_not_use_it_up(site):
    async with site.browser() as browser, site.browser() as late:
        link = await _link(browser, site.token)
        await browser.get(f"/sign-in/{link}")
        page = await browser.get(f"/sign-in/{link}")
        used = await browser.post(f"/sign-in/{link}", data={"csrf": csrf_of(page)})
        assert used.status_code == 303
        assert "shoal-session" in browser.cookies
        page = await late.get(f"/sign-in/{link}")
        again = await late.post(f"/sign-in/{link}", data={"csrf": csrf_of(page)})
        assert again.status_code == 401
        assert "has been used or has expired" in again.text


async def test_link_that_has_expired_signs_nobody_in(site):
    async with site.browser() as browser:
        link = await _link(browser, site.token)
        with writing(site.services.engine) as connection:
            connection.execute(update(one_time_links).values(expires_ms=1))
        page = await browser.get(f"/sign-in/{link}")
        answer = await browser.post(f"/sign-in/{link}", data={"csrf": csrf_of(page)})
        assert answer.status_code == 401


async def test_link_needs_a_token(site):
    site.people("operator")
    async with site.browser() as browser:
        assert (await browser.post("/api/v1/sign-in-links")).status_code == 401


@pytest.mark.parametrize("goal", ["//elsewhere.example", "https://elsewhere.example", "/\\x", "x"])
async def test_signing_in_never_leads_to_another_site(site, goal):
    async with site.browser() as browser:
        page = await browser.get("/sign-in", params={"next": goal})
        data = {"token": site.token, "csrf": csrf_of(page), "next": goal}
        answer = await browser.post("/sign-in", data=data)
        assert answer.headers["location"] == "/"
