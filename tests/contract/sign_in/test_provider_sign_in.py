"""People sign in at a real OpenID provider, and get in with no other answer."""

from __future__ import annotations

import re
import time
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import pytest
from playwright.sync_api import sync_playwright

from shoal.client import Client

pytestmark = pytest.mark.contract

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture
def browser():
    """Follows redirects and keeps cookies, by host alone."""
    with httpx.Client(follow_redirects=False, timeout=30) as client:
        yield client


def _begin(browser, site, goal="/"):
    """To the provider: the authorization request's URL."""
    answer = browser.get(f"{site.url}/sign-in/provider", params={"next": goal})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def _authorise(browser, url, name):
    """Sign in there; the URL that it sends the browser back to."""
    answer = browser.get(url)
    for _ in range(10):
        if urlsplit(goal := answer.headers.get("location", "")).path == "/sign-in/provider/done":
            return goal
        if goal:
            answer = browser.get(urljoin(str(answer.url), goal))
            continue
        fields = dict(re.findall(r'name="(csrf_token)"[^>]*value="([^"]*)"', answer.text))
        fields |= {"login": name, "password": f"a long password of {name}"}
        answer = browser.post(str(answer.url), data=fields)
    raise AssertionError(answer.text)


def _problem(answer):
    return re.findall(r'role="alert">([^<]*)<', answer.text)


def test_a_browser_signs_in_and_has_the_role_of_its_group(site):
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page()
        page.goto(f"{site.url}/sign-in?next=/settings")
        page.get_by_role("link", name="Sign in with Canaille").click()
        page.locator("[name=login]").fill("ada")
        page.locator("[name=login]").press("Enter")
        page.locator("[name=password]").fill("a long password of ada")
        page.locator("[name=password]").press("Enter")
        page.wait_for_url(f"{site.url}/settings")
        assert "ada" in page.locator("main").inner_text()
        assert page.get_by_role("heading", name="Users").is_visible()  # an admin's
        cookie = next(c for c in page.context.cookies() if c["name"] == "shoal-session")
        assert (cookie["sameSite"], cookie["httpOnly"]) == ("Strict", True)
        chromium.close()
    with Client(site.url, site.controller.operator_token()) as client:
        users = {one["name"]: one for one in client.users()}
        assert (users["ada"]["role"], users["ada"]["issuer"]) == ("admin", site.issuer)


def test_who_is_in_no_group_with_a_role_is_let_in_nowhere(site, browser):
    back = _authorise(browser, _begin(browser, site), "eve")
    answer = browser.get(back)
    assert answer.status_code == 403
    assert "none of their groups" in answer.text
    assert "shoal-session" not in browser.cookies


def test_an_answer_opens_one_session_and_no_second(site, browser):
    back = _authorise(browser, _begin(browser, site), "bob")
    kept = dict(browser.cookies)
    answer = browser.get(back)
    assert answer.status_code == 200, _problem(answer)
    assert "shoal-session" in browser.cookies
    with httpx.Client(cookies=kept, timeout=30) as thief:  # the same answer and the same cookie
        again = thief.get(back)
        assert again.status_code == 401
        assert "refuses" in again.text


def test_the_answer_of_another_browser_is_refused(site, browser):
    """Login CSRF: a victim shall not be signed in as the attacker."""
    back = _authorise(browser, _begin(browser, site), "gil")
    with httpx.Client(timeout=30) as victim:
        assert victim.get(back).status_code == 401  # has begun nothing
        _begin(victim, site)
        answer = victim.get(back)
        assert answer.status_code == 401
        assert "another sign-in" in answer.text
        assert "shoal-session" not in victim.cookies


@pytest.mark.parametrize(
    ("goal", "name"),
    [
        ("https://elsewhere.example/", "cid"),
        ("//elsewhere.example", "dan"),
        ("/\\elsewhere", "fay"),
    ],
)
def test_nobody_is_sent_elsewhere_afterwards(site, browser, goal, name):
    back = _authorise(browser, _begin(browser, site, goal), name)
    answer = browser.get(back)
    assert answer.status_code == 200, _problem(answer)
    assert "elsewhere" not in answer.text


def test_the_request_carries_state_nonce_and_a_challenge(site, browser):
    query = parse_qs(urlsplit(_begin(browser, site)).query)
    assert query["code_challenge_method"] == ["S256"]
    assert all(len(query[name][0]) > 40 for name in ("state", "nonce", "code_challenge"))
    assert "secret" not in str(query)


def test_a_provided_user_has_no_password_and_no_role_of_ours(site, browser):
    back = _authorise(browser, _begin(browser, site), "hal")
    answer = browser.get(back)
    assert answer.status_code == 200, _problem(answer)
    with Client(site.url, site.controller.operator_token()) as client:
        with pytest.raises(Exception, match="vouches for them"):
            client.change_user("hal", role="admin")
        client.change_user("hal", disabled=True)
    assert "hal" not in browser.get(f"{site.url}/settings").text  # the session has ended
    second = time.time_ns() // 10**9
    while time.time_ns() // 10**9 == second:  # the provider's tokens differ by the second alone
        time.sleep(0.05)
    back = _authorise(browser, _begin(browser, site), "hal")
    answer = browser.get(back)
    assert (answer.status_code, "is disabled" in answer.text) == (403, True)
    with Client(site.url, site.controller.operator_token()) as client:
        client.change_user("hal", disabled=False)
