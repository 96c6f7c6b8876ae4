"""A hostile client at the broker as we ship it; rows are those of `docs/explanation/trust.md`.

What a client with a good certificate may not reach (23, 28) is in `test_permissions`; here is who
comes in at all, and as whom.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from agent.access import BrokerAccess, broker_context
from controller.broker import DIRECTOR_ACCOUNT, INGEST_ACCOUNT, EmbeddedBroker
from controller.broker.handshake import ACCEPTED, UNREACHABLE, Login, log_in
from controller.identity.authority import make_authority
from shoal.errors import InvalidInputError
from shoal.protocol.topics import parse_topic

pytestmark = pytest.mark.contract

DESIRED = "shoal/v1/jfk/gw-1/desired"
STATE = "shoal/v1/jfk/gw-1/state"
MOSQUITTO = pytest.mark.parametrize("broker_kind", ["mosquitto"])


async def _knock(broker, context, port=None):
    return await log_in(broker.host, port or broker.port, Login("gw-1", context=context), 10.0)


async def test_a_certificate_of_the_fleet_comes_in(broker, hold):
    """What the refusals below are compared with."""
    assert await _knock(broker, hold("gw-1").context) == ACCEPTED


async def test_nobody_comes_in_without_a_certificate(broker, identities):
    authorities = identities.controller_authority().decode()
    assert await _knock(broker, ssl.create_default_context(cadata=authorities)) != ACCEPTED


async def test_a_certificate_of_another_authority_is_refused(broker, hold):
    """Row 23: also of one that calls itself like ours."""
    stranger = make_authority("Shoal fleet CA", datetime.now(UTC))
    assert await _knock(broker, hold("gw-1", authority=stranger).context) != ACCEPTED


async def test_a_certificate_that_has_ended_is_refused(broker, hold, identities, monkeypatch):
    """Row 22."""
    issue = identities.fleet.issue_client
    past = datetime.now(UTC) - timedelta(days=10)
    monkeypatch.setattr(
        identities.fleet, "issue_client", lambda name, key, _now, life: issue(name, key, past, life)
    )
    assert await _knock(broker, hold("gw-1").context) != ACCEPTED


async def test_a_broker_that_is_not_ours_gets_no_login(broker, hold, identities):
    """Row 15: a device believes the authority it was given, and the name in the certificate."""
    context = hold("gw-1").context
    fake = make_authority("Shoal broker CA", datetime.now(UTC))
    other = ssl.create_default_context(cadata=fake.chain_pem.decode())
    for wrong, name in ((other, broker.host), (context, "elsewhere.example")):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(broker.host, broker.port, ssl=wrong, server_hostname=name)


async def test_a_revoked_certificate_is_refused_and_the_devices_next_one_is_not(broker, hold):
    """Row 22: the list names certificates, so a device that enrols again comes in."""
    stolen, fresh = hold("gw-1"), hold("gw-1")
    known = dict.fromkeys(("gw-1", "gw-2", "gw-3"), "unused-with-certificates")
    own = dict.fromkeys((INGEST_ACCOUNT, DIRECTOR_ACCOUNT), "unused-with-certificates")
    assert await _knock(broker, stolen.context) == ACCEPTED

    if broker.kind == "nats":  # it has no such list: a device is in its accounts or is not
        await broker.set_accounts({}, own, [stolen.serial])
        assert await _knock(broker, stolen.context) != ACCEPTED
        return
    await broker.set_accounts(known, own, [stolen.serial])

    assert await _knock(broker, stolen.context) == UNREACHABLE
    assert await _knock(broker, fresh.context) == ACCEPTED


@MOSQUITTO
async def test_a_live_session_of_a_revoked_certificate_is_ended_and_does_not_come_back(
    broker, hold, connect
):
    """Row 22: mosquitto keeps a session whose certificate was taken back, so it is taken over."""
    stolen = hold("gw-1")
    thief, ingest = await connect("gw-1", context=stolen.context), await connect(INGEST_ACCOUNT)
    assert await ingest.subscribe("shoal/v1/+/+/state")
    own = dict.fromkeys((INGEST_ACCOUNT, DIRECTOR_ACCOUNT), "unused-with-certificates")
    await broker.set_accounts({}, own, [stolen.serial])

    await thief.publish(STATE, b"still there")  # why the next line is needed
    assert (await ingest.receive()).payload == b"still there"
    await broker.cut_off("gw-1")

    await thief.disconnected()
    thief.client.publish(STATE, b"after", qos=1)  # paho tries again and again to deliver it
    with pytest.raises(TimeoutError):
        await ingest.receive(1.5)


@MOSQUITTO
async def test_what_waits_for_a_device_survives_a_thief_of_its_client_id(connect):
    """Row 24."""
    owner = await connect("gw-1", clean=False)
    assert await owner.subscribe(DESIRED)
    await asyncio.to_thread(owner.close)
    director = await connect(DIRECTOR_ACCOUNT)
    await director.publish(DESIRED, b"queued")

    for clean in (False, True):
        thief = await connect("gw-2", client_id="gw-1", clean=clean)
        assert thief.messages.empty()
        await asyncio.to_thread(thief.close)

    again = await connect("gw-1", clean=False)
    assert (await again.receive()).payload == b"queued"


@MOSQUITTO
@pytest.mark.parametrize("name", ["+", "#", "gw-1/x", "shoal/v1/jfk/gw-1", "%u", "controller"])
async def test_a_wildcard_for_a_name_reaches_nothing_of_others(connect, hold, name):
    """Row 25: our controller issues no such name; this is what a careless one would cost."""
    director, ingest = await connect(DIRECTOR_ACCOUNT), await connect(INGEST_ACCOUNT)
    assert await ingest.subscribe("shoal/v1/#")
    await director.publish(DESIRED, b"secret", retain=True)
    assert (await ingest.receive()).payload == b"secret"
    try:
        attacker = await connect("odd", context=hold(name).context)
    except PermissionError:
        return  # not let in at all
    for topic in ("#", "shoal/v1/+/+/desired", "shoal/v1/jfk/+/desired", DESIRED):
        attacker.client.subscribe(topic, 1)
    attacker.client.publish(STATE, b"forged", qos=1)
    attacker.client.publish("shoal/v1/jfk/gw-1/x/state", b"forged", qos=1)
    await attacker.publish(DESIRED, b"forged")

    with pytest.raises(TimeoutError):
        await attacker.receive(0.3)
    while not ingest.messages.empty():  # a name with a '/' has a subtree below another's
        with pytest.raises(InvalidInputError):
            parse_topic((await ingest.receive()).topic)


async def test_a_device_whose_clock_is_behind_believes_the_pinned_authority_without_dates(
    broker, hold, identities, tmp_path, monkeypatch
):
    """Row 21: only the dates go unread, and only while the agent knows its clock to be behind."""
    issue = identities.broker.issue_server
    later = datetime.now(UTC) + timedelta(days=365)
    monkeypatch.setattr(
        identities.broker,
        "issue_server",
        lambda names, key, _now, life: issue(names, key, later, life),
    )
    ahead = EmbeddedBroker(broker.kind, tmp_path / "ahead", identities=identities)
    ahead._probe_logs_in = _port_is_open(ahead)  # our own processes do read the dates
    await ahead.set_accounts({"gw-1": "unused-with-certificates"}, {})
    await ahead.start()
    try:
        (tmp_path / "identity.pem").write_bytes(hold("gw-1").pair)
        answers = {}
        for check_time in (True, False):
            context = broker_context(tmp_path, _access(identities), check_time=check_time)
            answers[check_time] = await _knock(ahead, context)
        assert answers == {True: UNREACHABLE, False: ACCEPTED}
        stranger = make_authority("Shoal broker CA", datetime.now(UTC))
        other = broker_context(tmp_path, _access(identities, stranger), check_time=False)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(ahead.host, ahead.port, ssl=other)
    finally:
        await ahead.stop()


def _access(identities, authority=None):
    authorities = (authority or identities.broker).chain_pem.decode()
    return BrokerAccess(
        host="", port=0, device="gw-1", authorities=authorities, not_before_ms=0, not_after_ms=0,
        fleet_authorities="",
    )  # fmt: skip


def _port_is_open(broker):
    async def is_open():
        try:
            _, writer = await asyncio.open_connection(broker.host, broker.port)
        except OSError:
            return False
        writer.close()
        return True

    return is_open


@MOSQUITTO
async def test_neither_authority_opens_the_others_listener(broker, hold, identities):
    """Every authority that a listener believes can make names for it."""
    device, own = hold("gw-1"), hold(INGEST_ACCOUNT, authority=identities.broker)
    forged = hold(INGEST_ACCOUNT)  # what a stolen fleet CA could make
    assert await _knock(broker, own.context, broker.controller_port) == ACCEPTED
    assert await _knock(broker, own.context) == UNREACHABLE
    assert await _knock(broker, device.context, broker.controller_port) == UNREACHABLE
    assert await _knock(broker, forged.context, broker.controller_port) == UNREACHABLE


async def test_with_an_intermediate_only_what_it_signed_comes_in(
    hold, identities, site_authorities, tmp_path
):
    """The root must be believed for the chain's sake; what it signed has no list, so no way in."""
    root, identities.fleet = site_authorities
    broker = EmbeddedBroker("mosquitto", tmp_path / "intermediate", identities=identities)
    await broker.start()
    try:
        below = hold("gw-1")
        assert await _knock(broker, below.context) == ACCEPTED
        assert await _knock(broker, hold("gw-1", authority=root).context) == UNREACHABLE
        await broker.set_accounts({}, {}, [below.serial])
        assert await _knock(broker, below.context) == UNREACHABLE
    finally:
        await broker.stop()


async def test_versions_of_tls_before_1_2_are_refused(broker, hold):
    context = hold("gw-1").context
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        await asyncio.open_connection(broker.host, broker.port, ssl=context)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await _knock(broker, context) == ACCEPTED


async def test_a_message_above_the_limit_reaches_nobody_and_ends_its_senders_session(connect):
    """Row 27; an agent never sends one (`test_outbox`)."""
    ingest, sender = await connect(INGEST_ACCOUNT), await connect("gw-2")
    other = await connect("gw-1")
    assert await ingest.subscribe("shoal/v1/+/+/state")

    sender.client.publish("shoal/v1/jfk/gw-2/state", bytes(200_000), qos=0)
    await sender.disconnected()

    await other.publish(STATE, b"small")
    assert (await ingest.receive()).payload == b"small"


async def test_a_flood_of_half_open_connections_keeps_nobody_out(broker, hold):
    """Handshakes that never end hold no place that others need."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            _, writer = await asyncio.open_connection(broker.host, broker.port)
            stack.callback(writer.close)
            writer.write(b"\x16\x03\x01")
        assert await _knock(broker, hold("gw-1").context) == ACCEPTED
