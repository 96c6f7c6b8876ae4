"""Aliases: who moved them, who agreed, and what rollouts make of them; cards and lineage."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import schema
from controller.config import RegistrySettings, load_settings
from controller.database import reading
from controller.registry.card import card_of, render
from controller.registry.lineage import graph
from controller.registry.signoff import outcome
from controller.releases import publish as upload
from shoal.errors import InvalidInputError
from shoal.package import make_package
from shoal.protocol.manifest import Lineage, ModelCard


@pytest.fixture
def ask(api, add_people, make_pump, release):
    """`ask("ann", "PUT", "/models/pump/aliases/champion", version="1.0")`: status and answer.

    Releases 1.0 and 2.0 of pump are there.
    """
    people = {"ann": "releaser", "ann's script": "releaser", "bob": "releaser", "olga": "operator"}
    add_people(people, "ann")
    release(make_pump())
    release(make_pump("2.0", 2, data=b"another"))

    def run(person, method, path, query=None, **body):
        headers = {"authorization": f"Bearer {person}"}
        more = {"json": body} if method in ("PUT", "POST") else {}
        answer = api.request(method, f"/api/v1{path}", headers=headers, params=query, **more)
        return answer.status_code, answer.json()

    return run


def _sign_off(services, count=1):
    services.settings = replace(services.settings, registry=RegistrySettings(approvals=count))


CHAMPION = "/models/pump/aliases/champion"


def test_an_alias_moves_and_keeps_who_when_from_to_and_why(ask, services):
    first = ask("ann", "PUT", CHAMPION, version="1.0", reason="first")
    assert first[1].get("state") == "made", first
    status, second = ask("bob", "PUT", CHAMPION, version="2.0", reason="better", expect="1.0")
    assert (status, second["from_version"], second["to_version"]) == (200, "1.0", "2.0")
    (now,) = ask("olga", "GET", "/aliases", {"model": "pump"})[1]["items"]
    assert (now["alias"], now["version"], now["set_by"]) == ("champion", "2.0", "bob")
    assert ask("bob", "DELETE", CHAMPION, {"reason": "retired"})[0] == 200
    moves = ask("olga", "GET", "/alias-changes", {"model": "pump"})[1]["items"]
    story = [(one["asked_by"], one["from_version"], one["to_version"], one["reason"])
             for one in moves]  # fmt: skip
    assert story == [
        ("bob", "2.0", None, "retired"),
        ("bob", "1.0", "2.0", "better"),
        ("ann", None, "1.0", "first"),
    ]  # fmt: skip
    assert all(one["asked_ms"] <= one["decided_ms"] for one in moves)
    with reading(services.engine) as connection:
        rows = connection.execute(schema.audit.select()).mappings()
        told = [row for row in rows if row["subject"] == "alias pump@champion"]
    assert [row["action"] for row in told] == ["alias.set"] * 3
    assert told[1]["data"]["from"] == "1.0"


def test_moves_are_paged_by_cursor(ask):
    for version in ("1.0", "2.0", "1.0"):
        ask("ann", "PUT", CHAMPION, version=version)
    first = ask("ann", "GET", "/alias-changes", {"limit": 2})[1]
    rest = ask("ann", "GET", "/alias-changes", {"limit": 2, "cursor": first["next_cursor"]})[1]
    assert [one["to_version"] for one in first["items"] + rest["items"]] == ["1.0", "2.0", "1.0"]
    assert rest["next_cursor"] is None
    assert ask("ann", "GET", "/alias-changes", {"cursor": "x"})[0] == 422


@pytest.mark.parametrize(
    ("alias", "body", "status", "code"),
    [
        ("champion", {"version": "3.0"}, 404, "not-found"),
        ("champion", {"version": "1.0", "expect": "2.0"}, 409, "alias-moved"),
        ("Champion!", {"version": "1.0"}, 422, "invalid-input"),
        ("champion", {"version": "1.0", "reason": "x" * 401}, 422, "invalid-request"),
        ("champion", {"version": "1.0", "resaon": "x"}, 422, "invalid-request"),
    ],
)
def test_a_move_that_cannot_be_is_refused_in_words(ask, alias, body, status, code):
    answer = ask("ann", "PUT", f"/models/pump/aliases/{alias}", **body)
    assert (answer[0], answer[1]["code"]) == (status, code)
    assert ask("ann", "GET", "/aliases")[1]["items"] == []


def test_a_champion_waits_for_another_person_and_a_candidate_does_not(ask, services):
    _sign_off(services)
    assert ask("ann", "PUT", "/models/pump/aliases/candidate", version="2.0")[1]["state"] == "made"
    change = ask("ann", "PUT", CHAMPION, version="2.0", reason="beats 1.0")[1]
    assert change["state"] == "waiting"
    assert [one["alias"] for one in ask("ann", "GET", "/aliases")[1]["items"]] == ["candidate"]

    path = f"/alias-changes/{change['id']}"
    for same in ("ann", "ann's script"):
        status, problem = ask(same, "POST", f"{path}/approve")
        assert (status, problem["code"]) == (403, "same-person")
    assert ask("olga", "POST", f"{path}/approve")[0] == 403
    status, made = ask("bob", "POST", f"{path}/approve", reason="looked at March")
    assert (status, made["state"]) == (200, "made")
    assert made["decisions"][0] | {"at_ms": 0} == {
        "person": "bob", "approved": True, "reason": "looked at March", "at_ms": 0,
    }  # fmt: skip
    assert ask("bob", "POST", f"{path}/approve")[1]["code"] == "not-waiting"


def test_two_approvals_are_of_two_people_and_one_refusal_is_enough(ask, services):
    _sign_off(services, 2)
    change = ask("olga", "PUT", CHAMPION, version="1.0")
    assert change[0] == 403
    change = ask("ann", "PUT", CHAMPION, version="1.0")[1]
    path = f"/alias-changes/{change['id']}"
    assert ask("bob", "POST", f"{path}/approve")[1]["state"] == "waiting"
    assert ask("bob", "POST", f"{path}/approve")[1]["code"] == "decided-already"
    newer = ask("ann", "PUT", CHAMPION, version="2.0")[1]
    assert ask("ann", "GET", path)[1]["state"] == "withdrawn"
    path = f"/alias-changes/{newer['id']}"
    assert ask("bob", "POST", f"{path}/reject")[0] == 422
    assert ask("bob", "POST", f"{path}/reject", reason="no data of May")[1]["state"] == "rejected"
    assert ask("ann", "GET", "/aliases")[1]["items"] == []


def test_an_alias_is_no_version_and_a_version_no_alias(ask, services, make_pump, package_file):
    assert ask("ann", "PUT", "/models/pump/aliases/next", version="2.0")[0] == 200
    with pytest.raises(Exception, match="is an alias"):
        upload(services, package_file(make_pump("next", 3)), "ann")
    upload(services, package_file(make_pump("rc", 3)), "ann")
    assert ask("ann", "PUT", "/models/pump/aliases/rc", version="1.0")[1]["code"] == (
        "alias-is-a-version"
    )
    assert ask("ann", "PUT", "/models/pump/aliases/candidate", version="rc")[1]["state"] == "made"
    _sign_off(services)
    assert ask("ann", "PUT", CHAMPION, version="rc")[1]["code"] == "not-released"


def test_a_rollout_takes_what_the_alias_points_at_and_keeps_its_name(ask, enrolled):
    enrolled("gw-1")
    ask("ann", "PUT", CHAMPION, version="1.0")
    plan = {"model": "pump@champion", "start": False}
    assert ask("olga", "POST", "/rollouts/preview", **plan)[0] == 200
    status, created = ask("olga", "POST", "/rollouts", **plan, resolved_from="a lie")
    assert (status, created["model"], created["version"]) == (201, "pump", "1.0")
    assert created["options"]["resolved_from"] == "pump@champion"
    ask("ann", "PUT", CHAMPION, version="2.0")
    rollout = ask("olga", "GET", f"/rollouts/{created['rollout']}")[1]
    assert rollout["version"] == "1.0"
    by_version = ask("olga", "POST", "/rollouts", model="pump@2.0", start=False)[1]
    assert by_version["options"]["resolved_from"] == ""
    assert ask("olga", "POST", "/rollouts", model="pump@none")[0] == 404
    assert ask("olga", "POST", "/rollouts", model="pump@champion", version="1.0")[0] == 422


@given(st.integers(0, 5), st.lists(st.booleans(), max_size=6))
def test_a_change_is_made_by_enough_people_and_by_nobodys_refusal(needed, answers):
    state = outcome(needed, [{"approved": one} for one in answers])
    if not all(answers):
        assert state == "rejected"
    else:
        assert state == ("made" if len(answers) >= needed else "waiting")


def test_configured_aliases_are_names(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[registry]\napprovals = 9\nsigned_off = "champion, No!"\n')
    with pytest.raises(InvalidInputError) as refused:
        load_settings(path)
    for words in ("registry.approvals", "registry.signed_off: 'No!'"):
        assert words in refused.value.sentence


def _with_card(package, signer, **changes):
    manifest = msgspec.structs.replace(package.manifest, **changes)
    return make_package(manifest, package.files, signer)


def test_a_card_is_rendered_safely(ask, release, make_pump, signer):
    card = ModelCard(
        summary="Finds **leaks**.",
        text="<script>alert(1)</script> [x](javascript:alert(1)) ![p](https://far/p.png)\n\n"
        "| a | b |\n|---|---|\n| [docs](https://here/) | 2 |",
        metrics={"f1 | score": 0.91},
    )
    release(_with_card(make_pump("3.0", 3), signer, card=card, lineage=Lineage(parent="2.0")))
    ask("ann", "PUT", CHAMPION, version="3.0")
    status, found = ask("olga", "GET", "/models/pump/releases/champion/card")
    assert (status, found["version"]) == (200, "3.0")
    html = found["html"]
    assert "<strong>leaks</strong>" in html
    assert "<script" not in html
    assert 'href="javascript' not in html
    assert "<img" not in html
    assert 'rel="noopener noreferrer nofollow"' in html
    assert "<td>f1 | score</td>\n<td>0.91</td>" in html


@given(st.text(max_size=300))
def test_no_text_becomes_markup_that_acts(text):
    html = render(text).lower()
    for tag in (
        "<script",
        "<img",
        "<iframe",
        "<style",
        "<form",
        'href="javascript',
        'href="data:t',
    ):
        assert tag not in html


def test_a_card_is_made_of_the_manifest_alone(make_pump):
    manifest = msgspec.to_builtins(make_pump().manifest)
    assert card_of(manifest)["markdown"].startswith("# pump 1.0\n")


def test_lineage_is_a_graph_of_parents_and_data(ask, release, make_pump, signer):
    lineage = Lineage(parent="2.0", dataset="march", dataset_sha256="ab" * 32, commit="c0ffee")
    release(_with_card(make_pump("3.0", 3), signer, lineage=lineage))
    found = ask("olga", "GET", "/models/pump/lineage")[1]
    names = {one["id"]: one for one in found["nodes"]}
    assert set(names) == {"pump@1.0", "pump@2.0", "pump@3.0", f"sha256:{'ab' * 32}"}
    assert names["pump@3.0"]["commit"] == "c0ffee"
    assert {"from": "pump@2.0", "to": "pump@3.0", "kind": "parent"} in found["edges"]
    assert ask("olga", "GET", "/models/nobody/lineage")[0] == 404


def test_a_parent_that_is_not_published_is_a_node_that_is_not_known():
    manifest = {"model": "pump", "version": "1", "lineage": {"parent": "teacher@7"}}
    found = graph([manifest])
    assert [(one["id"], one["known"]) for one in found["nodes"]] == [
        ("pump@1", True), ("teacher@7", False)
    ]  # fmt: skip
