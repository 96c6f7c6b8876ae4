"""The TUF repository of a controller: only what enough offline keys signed, served as it is."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import select
from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp

from controller import schema
from controller.app import build_services
from controller.database import reading, writing
from controller.director import mark_dirty, sign_pending
from controller.people.roles import RELEASER
from controller.repository import online, store
from controller.repository.resign import Resigner
from controller.repository.status import describe_status
from controller.setup import add_api_token
from shoal.protocol.envelope import DESIRED_TYPE, decode_envelope
from shoal.protocol.targets import DirectorKeys, release_path
from shoal.signing import FileSigner, KeyVerifier, key_id
from shoal.trust import ceremony
from shoal.trust.desk import target_of_package
from shoal.trust.metadata import RoleKeys, encode, sign
from shoal.trust.proposal import encode_proposal
from shoal.trust.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP


@pytest.fixture
def send(api, operator):
    """Sends a proposal, or bytes, as the admin."""

    def run(proposal, headers=operator):
        body = proposal if isinstance(proposal, bytes) else encode_proposal(proposal)
        return api.post("/api/v1/trust", content=body, headers=headers)

    return run


@pytest.fixture
def releaser(services):
    add_api_token(services.settings, "rel", RELEASER, "k-rel")
    return {"authorization": "Bearer k-rel"}


@pytest.fixture
def published(send, signers):
    """A controller with its first root."""
    answer = send(signers.first())
    assert answer.status_code == 200, answer.text
    return signers


@pytest.fixture
def push(api, operator, make_pump, package_file):
    def run(version="1.0", sequence=1):
        package = make_pump(version, sequence)
        body = package_file(package).read_bytes()
        answer = api.post("/api/v1/releases", content=body, headers=operator)
        assert answer.status_code == 201, answer.text
        return package

    return run


@pytest.fixture
def versions(services):
    """Current version of each role."""

    def read():
        table = schema.trust_metadata
        query = select(table.c.role, table.c.version).where(table.c.ended_ms.is_(None))
        with reading(services.engine) as connection:
            return {row.role: row.version for row in connection.execute(query)}

    return read


def test_the_first_root_makes_a_whole_repository(api, published):
    stamp = Metadata[Timestamp].from_bytes(api.get("/repository/metadata/timestamp.json").content)
    name = f"{stamp.signed.snapshot_meta.version}.snapshot.json"
    snapshot = Metadata[Snapshot].from_bytes(api.get(f"/repository/metadata/{name}").content)
    for file, one in snapshot.signed.meta.items():
        answer = api.get(f"/repository/metadata/{one.version}.{file}")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    root = Metadata[Root].from_bytes(api.get("/repository/metadata/1.root.json").content)
    root.signed.verify_delegate(TIMESTAMP, stamp.signed_bytes, stamp.signatures)
    root.signed.verify_delegate(SNAPSHOT, snapshot.signed_bytes, snapshot.signatures)


def test_the_timestamp_is_asked_for_again_and_says_when_nothing_is_new(api, published):
    first = api.get("/repository/metadata/timestamp.json")
    assert first.headers["cache-control"] == "no-cache"
    again = api.get(
        "/repository/metadata/timestamp.json", headers={"if-none-match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


def test_a_root_that_is_not_there_yet_is_not_remembered_as_missing(api, published):
    answer = api.get("/repository/metadata/2.root.json")
    assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-cache")


@pytest.mark.parametrize(
    "name", ["..%2f..%2fkeys%2fsnapshot.key", "root.json", "1.timestamp.json", "0.root.json", "x"]
)
def test_nothing_but_metadata_is_served(api, published, name):
    assert api.get(f"/repository/metadata/{name}").status_code == 404


def test_an_enrolled_device_is_given_the_newest_root(services, published, enrolled, api):
    payload = msgspec.json.decode(enrolled("gw-1").body)["payload"]
    from base64 import b64decode

    root = b64decode(json.loads(b64decode(payload))["root"])
    assert root == api.get("/repository/metadata/1.root.json").content


def test_a_release_is_published_by_its_bin_snapshot_and_timestamp_alone(
    send, published, push, versions, releaser
):
    package = push()
    before = versions()
    answer = send(published.release(package), releaser)
    assert answer.status_code == 200, answer.text
    after = versions()
    changed = {role for role in after if after[role] != before[role]}
    assert changed - {SNAPSHOT, TIMESTAMP} == {name for name in changed if name.startswith("bin-")}
    assert len(changed) == 3


def test_online_roles_are_signed_anew_by_the_hour_and_before_they_end(services, published):
    resigner = Resigner(services.engine, services.keyring)
    now = datetime.now(UTC)
    assert not resigner.work(now)
    assert resigner.work(now + timedelta(hours=1, seconds=1))
    assert not resigner.work(now + timedelta(hours=1, seconds=2))
    with reading(services.engine) as connection:
        first = store.snapshot(connection)
    assert resigner.work(now + timedelta(days=5))
    with reading(services.engine) as connection:
        assert store.snapshot(connection).signed.version == first.signed.version + 1
        stamp = store.timestamp(connection)
    assert online.issued(stamp) == (now + timedelta(days=5)).replace(microsecond=0)


def test_signed_time_never_goes_back(services, published):
    resigner = Resigner(services.engine, services.keyring)
    now = datetime.now(UTC)
    resigner.work(now + timedelta(days=6, hours=1))
    with reading(services.engine) as connection:
        high = online.issued(store.timestamp(connection))
        snapshot = store.snapshot(connection)
    stamp = Metadata(online.next_timestamp(None, snapshot, high))
    assert online.issued(Metadata(online.next_timestamp(stamp, snapshot, now))) == high


@pytest.mark.parametrize(
    ("days", "said"),
    [(0, []), (70, ["targets ends soon"]), (91, ["targets has expired"])],
)
def test_people_are_told_in_time_that_targets_end(services, published, days, said):
    Resigner(services.engine, services.keyring).work(datetime.now(UTC) + timedelta(days=days))
    with reading(services.engine) as connection:
        found = describe_status(
            connection, services.keyring, datetime.now(UTC) + timedelta(days=days)
        )
    assert [one.split(" (")[0].split(":")[0] for one in found["warnings"]] == said


# Hostile uploads


def _refused(answer, code):
    assert answer.status_code in (403, 409, 422), answer.text
    assert answer.json()["code"] == code, answer.text


def test_a_key_that_the_root_does_not_name_signs_nothing(send, published, push, versions):
    proposal = ceremony.propose_releases(
        published.contents(), [target_of_package(push())], published.now
    )
    for one in proposal.bins.values():
        sign(one, FileSigner.generate())
    before = versions()
    _refused(send(proposal), "under-signed")
    assert versions() == before


def test_an_online_key_signs_no_release(services, send, published, push):
    proposal = ceremony.propose_releases(
        published.contents(), [target_of_package(push())], published.now
    )
    for role in (SNAPSHOT, TIMESTAMP, "director"):
        for one in proposal.bins.values():
            sign(one, services.keyring.signers(role)[0])
    _refused(send(proposal), "under-signed")


def test_too_few_signatures_are_refused_and_one_key_twice_is_one(send, signers, push):
    second = FileSigner.generate()
    two = RoleKeys((signers.targets.public_key, second.public_key), 2)
    first = signers.first(**{TARGETS: two})
    _refused(send(first), "under-signed")
    assert send(signers.sign(first, second)).status_code == 200
    proposal = signers.release(push(), signers.targets, signers.targets)
    _refused(send(proposal), "under-signed")
    assert send(signers.sign(proposal, second)).status_code == 200


@pytest.mark.parametrize("step", [-1, 1, 2**20])
def test_a_version_that_does_not_rise_by_one_is_refused(send, published, push, step):
    proposal = published.release(push())
    for one in proposal.bins.values():
        one.signed.version += step
        one.signatures.clear()
        sign(one, published.targets)
    _refused(send(proposal), "wrong-version")


def test_the_same_proposal_twice_is_refused_the_second_time(send, published, push):
    proposal = published.release(push())
    assert send(proposal).status_code == 200
    _refused(send(proposal), "wrong-version")


def test_a_release_taken_out_without_being_named_is_refused(send, published, push):
    assert send(published.release(push())).status_code == 200
    proposal = ceremony.propose_releases(
        published.contents(), [], published.now, [release_path("pump", 1)]
    )
    published.sign(proposal, published.targets)
    hidden = type(proposal)(bins=proposal.bins)
    _refused(send(hidden), "removed-release")
    assert send(proposal).status_code == 200


def test_a_published_release_never_gets_other_bytes(send, published, push):
    assert send(published.release(push())).status_code == 200
    contents = published.contents()
    target = next(
        one.signed.targets[release_path("pump", 1)]
        for one in contents.bins.values()
        if release_path("pump", 1) in one.signed.targets
    )
    other = copy.deepcopy(target)
    other.hashes["sha256"] = "0" * 64
    proposal = ceremony.propose_releases(contents, [other], published.now)
    _refused(send(published.sign(proposal, published.targets)), "changed-release")


def test_a_release_that_was_not_uploaded_is_refused(send, published, make_pump):
    _refused(send(published.release(make_pump())), "not-uploaded")


def test_a_release_in_the_wrong_bin_is_refused(send, published, push):
    proposal = published.release(push())
    (name,) = proposal.bins
    wrong = next(one for one in published.contents().bins if one != name)
    _refused(send(type(proposal)(bins={wrong: proposal.bins[name]})), "bad-bins")


@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "releases/pump/1.json/..", "a\\b"])
def test_a_target_s_name_that_could_be_a_path_is_refused(send, published, push, path):
    contents = published.contents()
    target = target_of_package(push())
    target.path = path
    proposal = ceremony.propose_releases(contents, [target], published.now)
    answer = send(published.sign(proposal, published.targets))
    assert answer.status_code == 422


def test_a_second_root_must_follow_from_the_first(send, published):
    contents = published.contents()
    thief = FileSigner.generate()
    roles = {ROOT: RoleKeys((thief.public_key,))}
    proposal = ceremony.propose_keys(contents, published.now, roles)
    sign(proposal.root, thief)
    _refused(send(proposal), "under-signed")
    published.sign(proposal, published.root)
    assert send(proposal).status_code == 200


def test_a_new_root_that_its_own_keys_did_not_sign_is_refused(send, published):
    new = FileSigner.generate()
    proposal = ceremony.propose_keys(
        published.contents(), published.now, {ROOT: RoleKeys((new.public_key,))}
    )
    _refused(send(published.sign(proposal, published.root)), "under-signed")


def test_other_targets_keys_without_targets_signed_by_them_are_refused(send, published):
    new = FileSigner.generate()
    proposal = ceremony.propose_keys(
        published.contents(), published.now, {TARGETS: RoleKeys((new.public_key,))}
    )
    published.sign(proposal, published.root)
    _refused(send(type(proposal)(root=proposal.root)), "resign-targets")
    published.sign(proposal, new)
    _refused(send(type(proposal)(root=proposal.root, targets=proposal.targets)), "resign-targets")
    assert send(proposal).status_code == 200


@pytest.mark.parametrize("role", [SNAPSHOT, TIMESTAMP])
def test_a_root_whose_online_key_we_do_not_hold_is_refused(send, published, role):
    keys = RoleKeys((FileSigner.generate().public_key,))
    proposal = ceremony.propose_keys(published.contents(), published.now, {role: keys})
    _refused(send(published.sign(proposal, published.root)), "no-online-key")


def test_an_online_key_may_not_become_a_targets_key(send, services, published):
    online_key = services.keyring.signers(SNAPSHOT)[0]
    roles = {TARGETS: RoleKeys((online_key.public_key, published.targets.public_key))}
    proposal = ceremony.propose_keys(published.contents(), published.now, roles)
    _refused(send(published.sign(proposal, published.root, published.targets)), "online-key")


def test_new_keys_need_an_admin(send, published, releaser):
    proposal = ceremony.propose_renewal(published.contents(), published.now, {ROOT})
    published.sign(proposal, published.root)
    _refused(send(proposal, releaser), "forbidden")
    assert send(proposal).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'{"schema": 9}', b'{"root": {}}', b'{"targets": 3}', b'{"extra": 1}',
        b'{"bins": {"bin-0": {"signed": {}, "signatures": []}}}', b"\xff", b"[" * 5000,
        b'{"root": {"signed": {"_type": "root"}, "signatures": [{"keyid": 1}]}}',
    ],
)  # fmt: skip
def test_what_is_no_proposal_is_refused_in_words(send, published, versions, body):
    before = versions()
    assert send(body).status_code == 422
    assert versions() == before


def test_a_proposal_beyond_the_limit_is_refused(send, published):
    _refused(send(b" " * (16 * 1024 * 1024 + 1)), "too-large")


def test_oversized_metadata_is_refused(send, published, push):
    proposal = published.release(push())
    for one in proposal.bins.values():
        one.signed.unrecognized_fields["x-pad"] = "x" * 1024 * 1024
    _refused(send(published.sign(proposal, published.targets)), "too-large")


def test_an_expiry_too_far_away_is_refused(send, published):
    later = published.now + timedelta(days=400)
    proposal = ceremony.propose_renewal(published.contents(), later, {ROOT})
    _refused(send(published.sign(proposal, published.root)), "wrong-expiry")


def test_every_publication_is_in_the_audit_log(api, operator, published):
    row = api.get("/api/v1/audit", headers=operator).json()["items"][0]
    assert row["action"] == "trust.root"
    assert row["data"]["versions"][ROOT] == 1


def test_two_controllers_keys_of_one_role_sign_by_the_root_s_choice(services, send, published):
    new = services.keyring.add(TIMESTAMP)
    both = {TIMESTAMP: RoleKeys((new, *services.keyring.public_keys(TIMESTAMP)[:1]))}
    proposal = ceremony.propose_keys(published.contents(), published.now, both)
    assert send(published.sign(proposal, published.root)).status_code == 200
    alone = {TIMESTAMP: RoleKeys((new,))}
    proposal = ceremony.propose_keys(published.contents(), published.now, alone)
    assert send(published.sign(proposal, published.root)).status_code == 200
    with reading(services.engine) as connection:
        stamp, root = store.timestamp(connection), store.current(connection, ROOT, Root)
    root.signed.verify_delegate(TIMESTAMP, stamp.signed_bytes, stamp.signatures)
    assert encode(root)


# The director's keys


def _rename(published, send, keys):
    director = DirectorKeys(keys=keys)
    proposal = ceremony.propose_keys(published.contents(), published.now, director=director)
    return send(published.sign(proposal, published.targets))


def test_the_old_director_key_signs_until_it_is_taken_out_then_all_is_signed_anew(
    services, send, published, enrolled
):
    enrolled("gw-1")
    with writing(services.engine) as connection:
        mark_dirty(connection, "gw-1")
    sign_pending(services.engine, services.director, datetime.now(UTC))
    old = services.director.public_key
    new = services.keyring.add("director")
    assert _rename(published, send, [old, new]).status_code == 200
    assert services.director.public_key == old
    assert sign_pending(services.engine, services.director, datetime.now(UTC)) == 0
    assert _rename(published, send, [new]).status_code == 200
    assert services.director.public_key == new
    assert sign_pending(services.engine, services.director, datetime.now(UTC)) == 1
    with reading(services.engine) as connection:
        envelope = connection.scalar(select(schema.desired.c.envelope))
    KeyVerifier([new]).open(decode_envelope(envelope), DESIRED_TYPE)
    again = build_services(services.settings)
    assert again.director.public_key == new
    again.engine.dispose()


def test_a_director_key_that_we_do_not_hold_is_refused(send, published):
    _refused(_rename(published, send, [b"k" * 32]), "no-online-key")


def test_director_s_bytes_that_were_not_signed_are_refused(send, published, services):
    director = DirectorKeys(keys=[services.director.public_key], min_sequence=7)
    proposal = ceremony.propose_keys(published.contents(), published.now, director=director)
    published.sign(proposal, published.targets)
    other = type(proposal)(targets=proposal.targets, files={"trust/director.json": b"{}"})
    _refused(send(other), "digest-mismatch")


# What people see


def test_health_pages_and_trust_tell_the_same(api, operator, published, services, push):
    assert api.get("/api/v1/health").json()["trust"] == {"ready": True, "warnings": []}
    roles = api.get("/api/v1/trust", headers=operator).json()["roles"]
    assert [(one["role"], one["version"], one["threshold"]) for one in roles] == [
        (ROOT, 1, 1), (TARGETS, 1, 1), (SNAPSHOT, 1, 1), (TIMESTAMP, 1, 1),
    ]  # fmt: skip
    page = api.get("/settings", headers=operator).text
    assert roles[0]["keys"][0]["key_id"] in page
    push()
    assert "Pending signature" in api.get("/models/pump/1.0", headers=operator).text


def test_without_a_root_people_are_told_what_to_do(api, operator):
    assert "shoal trust init" in api.get("/api/v1/health").json()["trust"]["warnings"][0]
    assert "shoal trust init" in api.get("/alerts", headers=operator).text


def test_a_release_pending_signature_is_in_no_rollout(
    api, operator, published, push, enrolled, send
):
    enrolled("gw-1")
    package = push()
    body = {"model": "pump", "version": "1.0"}
    for path in ("/api/v1/rollouts/preview", "/api/v1/rollouts"):
        answer = api.post(path, json=body, headers=operator)
        assert (answer.status_code, answer.json()["code"]) == (409, "not-released")
    assert send(published.release(package)).status_code == 200
    release = api.get("/api/v1/models/pump/releases/1.0", headers=operator).json()
    assert release["state"] == "released"
    assert release["signers"] == [key_id(published.targets.public_key)]
    assert api.post("/api/v1/rollouts", json=body, headers=operator).status_code == 201
