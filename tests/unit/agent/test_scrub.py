"""Secrets are taken out wherever they stand; the rest stays readable."""

from __future__ import annotations

import doctest
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent.scrub
from agent.logring import MAX_LINE, LogRing
from agent.scrub import HIDDEN, held_secrets, scrub, scrub_text
from shoal.signing import FileSigner


@pytest.mark.parametrize(
    "text",
    [
        "url = 'https://user:S3cr3tS3cr3t@host/path'",
        'password = "S3cr3tS3cr3t"',
        "mqtt_password: S3cr3tS3cr3t",
        '{"api_key": "S3cr3tS3cr3t"}',
        "Authorization: Bearer S3cr3tS3cr3t",
        "GET /hook?token=S3cr3tS3cr3t&x=1",
        "SHOAL_TOKEN=S3cr3tS3cr3t",
        "-----BEGIN PRIVATE KEY-----\nS3cr3tS3cr3t\n-----END PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_goes(text):
    clean = scrub_text(text, set())
    assert "S3cr3tS3cr3t" not in clean
    assert HIDDEN in clean


def test_what_is_no_secret_stays():
    text = 'tokens_per_second 12; device gw-1; key = 7 "path" = "/var/lib/x" http://host:80/a'
    assert scrub_text('path = "/var/lib/x" http://host:80/a', set()) == (
        'path = "/var/lib/x" http://host:80/a'
    )
    assert "device gw-1" in scrub_text(text, set())


def test_secrets_that_the_device_holds_go_in_any_place(tmp_path):
    key = FileSigner.load_or_create(tmp_path / "device.key")
    assert key.public_key
    secrets = held_secrets(tmp_path)
    body = "".join(key.private_pem().decode().splitlines()[1:-1])
    assert body in secrets  # as identity.pem has it
    assert len(secrets) == 3
    for secret in secrets:
        assert secret not in scrub_text(f"it said {secret} and ended", secrets)
    assert held_secrets(tmp_path / "absent") == set()


def test_secrets_of_the_configuration_go_in_any_place(tmp_path):
    (tmp_path / "token").write_text("token-in-a-file\n")
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""
[[models.pump.actions]]
url = "https://me:login-in-an-address@host/"
token_file = "{tmp_path / "token"}"
[models.pump.source]
password = "password-in-a-key"
"""
    )
    secrets = held_secrets(tmp_path, config)
    assert secrets == {"login-in-an-address", "token-in-a-file", "password-in-a-key"}
    assert scrub_text("could not send token-in-a-file", secrets) == f"could not send {HIDDEN}"


documents = st.recursive(
    st.text() | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(documents)
def test_a_document_keeps_its_shape(document):
    clean = scrub(document, {"secret-of-the-device"})

    def shape(one):
        if isinstance(one, dict):
            return {key: shape(value) for key, value in one.items()}
        return [shape(value) for value in one] if isinstance(one, list) else type(one)

    assert shape(clean) == shape(document)


def test_settings_named_as_secrets_go():
    found = scrub({"headers": {"Authorization": "x"}, "password": "p", "tokens": ["a"]}, set())
    assert found == {"headers": {"Authorization": HIDDEN}, "password": HIDDEN, "tokens": ["a"]}


def test_the_newest_log_lines_are_kept_and_long_ones_cut():
    ring = LogRing(most=3)
    logger = logging.getLogger("test-ring")
    logger.propagate = False
    logger.addHandler(ring)
    for number in range(5):
        logger.warning("line %d %s", number, "x" * 1000)
    lines = ring.lines()
    assert [line.split()[5] for line in lines] == ["2", "3", "4"]
    assert all(len(line) == MAX_LINE for line in lines)
    assert ring.lines(1) == lines[-1:]


def test_the_examples_are_right():
    assert doctest.testmod(agent.scrub).failed == 0
