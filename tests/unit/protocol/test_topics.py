"""Topics: what is formatted parses back, and nothing else parses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidInputError
from shoal.ids import DeviceId, ModelName, SiteId
from shoal.protocol.topics import (
    DOWN_CHANNELS,
    MODEL_CHANNELS,
    Channel,
    Topic,
    format_topic,
    parse_topic,
    up_filters,
)

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@st.composite
def topics(draw: st.DrawFn) -> Topic:
    channel = draw(st.sampled_from(Channel))
    model = ModelName(draw(names)) if channel in MODEL_CHANNELS else None
    transfer = draw(names) if channel is Channel.BLOCKS else None
    return Topic(SiteId(draw(names)), DeviceId(draw(names)), channel, model, transfer)


@given(topics())
def test_every_topic_parses_back(topic: Topic) -> None:
    text = format_topic(topic)
    assert parse_topic(text) == topic
    assert text.count("/") <= 7


@given(st.text(max_size=120))
def test_other_text_is_refused_or_canonical(text: str) -> None:
    try:
        topic = parse_topic(text)
    except InvalidInputError as error:
        assert error.code == "invalid-input"  # noqa: PT017 - both outcomes are allowed
    else:
        assert format_topic(topic) == text


@pytest.mark.parametrize(
    "text",
    [
        "shoal/v1/jfk/gw-1",
        "shoal/v2/jfk/gw-1/state",
        "shoal/v1/jfk/gw-1/window",
        "shoal/v1/jfk/gw-1/blocks",
        "shoal/v1/jfk/gw-1/blocks/a/b",
        "shoal/v1/jfk/gw-1/models/weather/state",
        "shoal/v1/jfk/+/state",
        "shoal/v1/jfk/#/state",
        "shoal/v1/jfk/gw-1/state/",
        "shoal/v1/jfk/gw-1/state\n",
        "shoal/v1/jfk/GW-1/state",
        "shoal/v1//gw-1/state",
        "/shoal/v1/jfk/gw-1/state",
    ],
)
def test_refuses_what_is_almost_a_topic(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a topic"):
        parse_topic(text)


def test_filters_cover_the_up_channels_and_no_other() -> None:
    last_levels = {text.rsplit("/", 1)[1] for text in up_filters()}
    reported = set(Channel) - DOWN_CHANNELS - {Channel.FETCH}
    assert last_levels == {channel.value for channel in reported}
    assert len(up_filters()) <= 8  # AWS IoT's limit for one SUBSCRIBE
