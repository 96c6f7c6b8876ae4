"""What may take the place of what is published: chains, thresholds, bins, in every order."""

from __future__ import annotations

import copy
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata

from controller.repository.online import next_snapshot
from shoal.errors import InvalidInputError, ShoalError, UntrustedError
from shoal.protocol.targets import DirectorKeys, parse_release_path, release_path
from shoal.signing import FileSigner
from shoal.trust import ceremony
from shoal.trust.changes import describe, find_changes
from shoal.trust.check import check, check_chain, check_whole
from shoal.trust.metadata import RoleKeys, decode, encode, new_root
from shoal.trust.proposal import (
    Base,
    Proposal,
    decode_proposal,
    encode_file,
    encode_proposal,
    read_file,
)
from shoal.trust.roles import DEFAULT_BIN_BITS, MAX_BYTES, ROOT, TARGETS


def _refused(site, proposal, code):
    with pytest.raises(ShoalError) as error:
        check(site.contents, proposal, site.now)
    assert error.value.code == code
    return error.value.sentence


# thresholds


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 3), (2, 3), (3, 3)])
def test_exactly_the_threshold_of_targets_keys_is_enough(make_site, k, n):
    site = make_site(targets=(k, n))
    proposal = site.propose(site.release())
    for one in site.keys[TARGETS][: k - 1]:
        ceremony.sign_proposal(site.contents, proposal, one)
    if k > 1:
        assert f"{k - 1} of {k}" in _refused(site, proposal, "under-signed")
        assert ceremony.find_missing(site.contents, proposal)[0].found == k - 1
    ceremony.sign_proposal(site.contents, proposal, site.keys[TARGETS][-1])
    assert ceremony.find_missing(site.contents, proposal) == []
    site.take(proposal)


def test_one_key_that_signs_twice_counts_once(make_site):
    site = make_site(targets=(2, 2))
    proposal = site.propose(site.release())
    for _ in range(2):
        ceremony.sign_proposal(site.contents, proposal, site.keys[TARGETS][0])
    _refused(site, proposal, "under-signed")


def test_a_root_key_signs_no_release_and_a_targets_key_no_root(site):
    proposal = site.propose(site.release())
    with pytest.raises(InvalidInputError, match="is named for nothing"):
        ceremony.sign_proposal(site.contents, proposal, site.keys[ROOT][0])
    proposal = ceremony.propose_renewal(site.contents, site.now, {ROOT})
    with pytest.raises(InvalidInputError, match="is named for nothing"):
        ceremony.sign_proposal(site.contents, proposal, site.keys[TARGETS][0])


@pytest.mark.parametrize("threshold", [0, 2, -1])
def test_a_threshold_that_nobody_can_reach_is_refused(threshold):
    with pytest.raises(InvalidInputError, match="threshold"):
        RoleKeys((FileSigner.generate().public_key,), threshold)


# the chain of roots


def test_a_new_root_needs_the_old_threshold_and_its_own(make_site):
    site = make_site(root=(2, 3))
    new = [FileSigner.generate() for _ in range(2)]
    roles = {ROOT: RoleKeys(tuple(one.public_key for one in new), 2)}
    proposal = ceremony.propose_keys(site.contents, site.now, roles)
    for signer in (site.keys[ROOT][0], *new):
        ceremony.sign_proposal(site.contents, proposal, signer)
    _refused(site, proposal, "under-signed")
    ceremony.sign_proposal(site.contents, proposal, site.keys[ROOT][1])
    site.take(proposal)


def test_who_trusts_an_old_root_follows_the_chain_and_nothing_else(site):
    first = site.contents.root
    roots = [first]
    for _ in range(3):
        new = FileSigner.generate()
        roles = {ROOT: RoleKeys((new.public_key,))}
        proposal = ceremony.propose_keys(site.contents, site.now, roles)
        for signer in (site.keys[ROOT][0], new):
            ceremony.sign_proposal(site.contents, proposal, signer)
        site.keys[ROOT] = [new]
        roots.append(site.take(proposal).root)
    assert check_chain(roots, first) == roots[-1]
    with pytest.raises(InvalidInputError, match="expected 3"):
        check_chain([roots[0], roots[1], roots[3]], first)
    with pytest.raises(UntrustedError):
        check_chain([*roots[:3], _forged(roots[3])], first)


def _forged(root):
    thief = FileSigner.generate()
    roles = {ROOT: RoleKeys((thief.public_key,))}
    forged = Metadata(new_root(root, roles, root.signed.expires))
    forged.signed.version = root.signed.version
    return ceremony.sign(forged, thief)


# signers are not lied to


def _base(site, **changes):
    files = {"trust/director.json": site.director_bytes}
    contents = site.contents
    found = Base((contents.root,), contents.targets, dict(contents.bins), files)
    return Base(**{**{name: getattr(found, name) for name in found.__slots__}, **changes})


def test_a_signer_gets_what_is_published_only_verified(site):
    assert ceremony.verify_base(_base(site), site.contents.root) is not None
    bins = copy.deepcopy(site.contents.bins)
    evil = ceremony.propose_releases(site.contents, [site.release("evil")], site.now)
    with pytest.raises(UntrustedError):
        ceremony.verify_base(_base(site, bins=bins | evil.bins), site.contents.root)


def test_a_signer_refuses_a_root_that_does_not_follow_from_theirs(make_site):
    mine, other = make_site(), make_site()
    with pytest.raises(UntrustedError) as error:
        ceremony.verify_base(_base(other), mine.contents.root)
    assert error.value.code == "wrong-root"


def test_a_proposal_is_told_in_words(site):
    lines = describe(site.contents, site.propose(site.release("pump", 7, b"manifest")))
    assert lines[0].startswith("release pump 7.0 (sequence 7), manifest 8 bytes, sha256 ")
    roles = {TARGETS: RoleKeys((FileSigner.generate().public_key,))}
    words = "\n".join(
        describe(site.contents, ceremony.propose_keys(site.contents, site.now, roles))
    )
    assert "role targets: 1 of 1 keys sign; adds key" in words
    assert "REMOVES key" in words


def test_a_file_for_signers_comes_back_as_it_was(site, tmp_path):
    path = tmp_path / "pending.json"
    path.write_bytes(encode_file(_base(site), site.propose(site.release())))
    base, proposal = read_file(path)
    ceremony.sign_proposal(base.contents(), proposal, site.keys[TARGETS][0])
    site.take(proposal)


# names


@pytest.mark.parametrize(
    "path",
    [
        "", "releases/pump/0.json", "releases/pump/1.json\n", "releases/Pump/1.json",
        "releases//1.json", "releases/pump/../1.json", "/releases/pump/1.json", "releases/pump/1",
        "releases\\pump\\1.json", "releases/pump/01.json", "releases/pump/1.json/x",
        "releases/" + "a" * 64 + "/1.json",
    ],
)  # fmt: skip
def test_only_plain_names_are_targets(path):
    with pytest.raises(InvalidInputError):
        parse_release_path(path)


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True), st.integers(1, 2**50))
def test_every_release_has_a_name_that_reads_back(model, sequence):
    assert parse_release_path(release_path(model, sequence)) == (model, sequence)


# damage


def test_no_flipped_bit_of_a_proposal_is_taken(site):
    good = encode_proposal(site.signed(site.propose(site.release())))
    before = encode(site.contents.targets)
    for at in range(0, len(good), 7):
        bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        try:
            after = check(site.contents, decode_proposal(bad), site.now)
        except ShoalError:
            continue
        added = find_changes(site.contents, decode_proposal(bad)).added
        assert [one.path for one in added] == [release_path("pump", 1)]
        assert added[0].hashes == site.release().hashes
        check_whole(after)
    assert encode(site.contents.targets) == before


@given(st.binary(max_size=200))
def test_noise_is_no_metadata(noise):
    with pytest.raises(ShoalError):
        decode_proposal(noise)


# any history


ACTS = st.lists(
    st.sampled_from(["release", "withdraw", "renew", ROOT, TARGETS, "director"]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS, data=st.data())
def test_any_history_of_publications_verifies_and_loses_nothing(make_site, acts, data):
    site, present, number = make_site(), set(), 0
    for act in acts:
        site.now += timedelta(days=data.draw(st.integers(0, 20)))
        before = site.contents
        signers = None
        if act == "release":
            number += 1
            proposal = site.propose(site.release("pump", number))
            present |= {release_path("pump", number)}
        elif act == "withdraw":
            if not present:
                continue
            gone = data.draw(st.sampled_from(sorted(present)))
            proposal = ceremony.propose_releases(before, [], site.now, [gone])
            present -= {gone}
        elif act == "renew":
            proposal = ceremony.propose_renewal(before, site.now, {ROOT, TARGETS})
        elif act == "director":
            keys = DirectorKeys(keys=[FileSigner.generate().public_key])
            proposal = ceremony.propose_keys(before, site.now, director=keys)
        else:
            new = FileSigner.generate()
            proposal = ceremony.propose_keys(before, site.now, {act: RoleKeys((new.public_key,))})
            signers = [*site.keys[ROOT], new] if act == ROOT else [site.keys[ROOT][0], new]
            site.keys[act] = [new]
        site.signed(proposal, *(signers or ()))
        after = site.take(proposal)
        check_whole(after)
        assert {path for one in after.bins.values() for path in one.signed.targets} == present
        for role, part in proposal.parts().items():
            old = {ROOT: before.root, TARGETS: before.targets, **before.bins}[role]
            assert part.signed.version == old.signed.version + 1
        assert decode(encode(after.root), type(after.root.signed), ROOT) == after.root


def test_a_proposal_of_nothing_is_refused(site):
    _refused(site, Proposal(), "bad-proposal")


def test_with_5000_releases_a_device_fetches_little(make_site):
    site = make_site(bin_bits=DEFAULT_BIN_BITS)
    releases = [site.release(f"model-{n % 250}", n // 250 + 1) for n in range(5000)]
    site.take(site.signed(site.propose(*releases)))
    sizes = sorted(len(encode(one)) for one in site.contents.bins.values())
    versions = {TARGETS: 1, **dict.fromkeys(site.contents.bins, 100)}
    snapshot = Metadata(next_snapshot(None, versions, site.now))
    assert sizes[len(sizes) // 2] + len(encode(snapshot)) < 14_000
    assert sizes[-1] < MAX_BYTES[TARGETS] // 50
    site.take(site.signed(site.propose(site.release("model-0", 1000))))
