"""Signing in with a password, and the page where people, users and tokens are looked after."""

from __future__ import annotations

import re

from controller.enrolment import enrol
from controller.people import users
from shoal.csr import make_request
from shoal.protocol.desired import EnrolmentRequest
from shoal.signing import FileSigner

from .conftest import csrf_of, sign_in

PASSWORD = "a horse, a battery"


def _add(site, name, role):
    users.add(site.services.engine, "operator", site.services.now_ms(), name, role, PASSWORD)


async def _sign_in(browser, name, password):
    page = await browser.get("/sign-in")
    fields = {"name": name, "password": password, "csrf": csrf_of(page)}
    return await browser.post("/sign-in", data=fields)


async def _send(browser, path, **fields):
    page = await browser.get("/settings")
    return await browser.post(f"/settings/{path}", data={"csrf": csrf_of(page), **fields})


async def test_password_signs_in_with_the_users_role(site):
    _add(site, "ann", "operator")
    async with site.browser() as browser:
        assert (await _sign_in(browser, "ann", PASSWORD)).status_code == 303
        page = await browser.get("/settings")
        assert "ann has the role operator" in page.text
        assert "API tokens" not in page.text
        assert (await browser.post("/api/v1/enrolment-tokens", json={})).status_code == 201
        assert (await browser.get("/api/v1/users")).status_code == 403


async def test_wrong_names_and_passwords_are_refused_in_the_same_words_and_then_made_to_wait(site):
    _add(site, "ann", "viewer")
    async with site.browser() as browser:
        unknown = await _sign_in(browser, "eve", PASSWORD)
        answers = [await _sign_in(browser, "ann", "wrong") for _ in range(7)]
        assert [one.status_code for one in (unknown, *answers)] == [401] * 7 + [429]
        for one in (unknown, answers[0]):
            assert "the name or the password is wrong" in one.text
        assert "too many attempts" in answers[-1].text
        assert "shoal-session" not in browser.cookies


async def test_changing_ones_password_needs_the_old_one_and_signs_out_everywhere(site):
    _add(site, "ann", "viewer")
    async with site.browser() as browser, site.browser() as other:
        await _sign_in(browser, "ann", PASSWORD)
        await _sign_in(other, "ann", PASSWORD)
        wrong = await _send(browser, "password", old="wrong", password="another long one")
        assert wrong.status_code == 401
        done = await _send(browser, "password", old=PASSWORD, password="another long one")
        assert done.headers["location"] == "/sign-in"
        assert "Sign out" not in (await other.get("/")).text
        assert (await _sign_in(other, "ann", PASSWORD)).status_code == 401
        assert (await _sign_in(other, "ann", "another long one")).status_code == 303


async def test_admin_adds_changes_and_disables_a_user(site):
    async with site.browser() as admin, site.browser() as browser:
        await sign_in(admin, site.token)
        added = await _send(admin, "users", name="bob", role="viewer", password=PASSWORD)
        assert added.headers["location"] == "/settings"
        await _sign_in(browser, "bob", PASSWORD)
        await _send(admin, "users/bob/role", role="releaser")
        assert "bob has the role releaser" in (await browser.get("/settings")).text
        await _send(admin, "users/bob/disable")
        assert "Sign out" not in (await browser.get("/")).text
        assert (await _send(admin, "users/bob/nonsense")).status_code == 422
        weak = await _send(admin, "users", name="eve", role="viewer", password="short")
        assert weak.status_code == 422
        assert "12 to 256 characters" in weak.text


async def test_a_tokens_text_is_shown_once_works_and_can_be_revoked(site):
    async with site.browser() as admin, site.browser() as program:
        await sign_in(admin, site.token)
        made = await _send(admin, "tokens", name="ci", role="viewer", days="7")
        token = re.search(r'<code id="token">([^<]+)</code>', made.text)[1]
        assert token not in (await admin.get("/settings")).text
        headers = {"authorization": f"Bearer {token}"}
        assert (await program.get("/api/v1/fleet", headers=headers)).status_code == 200
        listed = (await admin.get("/api/v1/api-tokens")).json()["items"]
        token_id = next(one["token_id"] for one in listed if one["name"] == "ci")
        await _send(admin, f"tokens/{token_id}/revoke")
        assert (await program.get("/api/v1/fleet", headers=headers)).status_code == 401
        assert (await _send(admin, "tokens", name="x", role="viewer", days="")).status_code == 422


async def test_settings_forms_without_the_sessions_token_change_nothing(site):
    async with site.browser() as admin:
        await sign_in(admin, site.token)
        fields = {"name": "eve", "role": "admin", "password": PASSWORD}
        assert (await admin.post("/settings/users", data=fields)).status_code == 403
        assert (await admin.get("/api/v1/users")).json()["items"] == []


async def test_nobody_but_an_admin_changes_people(site):
    _add(site, "ann", "releaser")
    async with site.browser() as browser:
        await _sign_in(browser, "ann", PASSWORD)
        answer = await _send(browser, "users", name="eve", role="admin", password=PASSWORD)
        assert answer.status_code == 403
        assert "this needs the role admin" in answer.text


def _ask(services, device, **changes):
    request = EnrolmentRequest(
        device=device,
        site="jfk",
        profile="<b>bold</b>",
        csr=make_request(device, FileSigner.generate()),
        nonce=bytes(24),
        **changes,
    )
    return enrol(services, request, "192.0.2.7")


async def test_an_operator_sees_who_waits_and_lets_one_in(site):
    services = site.services
    _add(site, "ann", "operator")
    fingerprints = [_ask(services, name).fingerprint for name in ("gw-1", "gw-2")]
    async with site.browser() as browser:
        await _sign_in(browser, "ann", PASSWORD)
        page = await browser.get("/settings")
        assert all(one in page.text for one in fingerprints)
        assert "<b>bold" not in page.text
        await _send(browser, f"admissions/{fingerprints[0]}/approve")
        await _send(browser, f"admissions/{fingerprints[1]}/reject")
        after = await browser.get("/settings")
        assert "comes in when it asks" in after.text
        assert fingerprints[1] not in after.text
        again = await _send(browser, f"admissions/{fingerprints[1]}/approve")
        assert again.status_code == 404


async def test_a_viewer_neither_sees_nor_decides_who_waits(site):
    _add(site, "ann", "viewer")
    fingerprint = _ask(site.services, "gw-1").fingerprint
    async with site.browser() as browser:
        await _sign_in(browser, "ann", PASSWORD)
        page = await browser.get("/settings")
        assert fingerprint not in page.text
        answer = await _send(browser, f"admissions/{fingerprint}/approve")
        assert answer.status_code == 403
