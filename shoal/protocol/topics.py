"""MQTT topics: `shoal/v1/<site>/<device>/<channel>`, as a type.

The site is the shard, the device owns its subtree, the model has a level of its own. At most
seven slashes, no wildcard or separator can hide in a name (`shoal.ids`).

>>> format_topic(Topic(SiteId("jfk"), DeviceId("gw-1"), Channel.WINDOW, ModelName("weather")))
'shoal/v1/jfk/gw-1/models/weather/window'
>>> parse_topic("shoal/v1/jfk/gw-1/state").channel
<Channel.STATE: 'state'>
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from shoal.errors import InvalidInputError
from shoal.ids import DeviceId, ModelName, SiteId, is_name

ROOT = "shoal/v1"


class Channel(Enum):
    """What travels on a topic; the value is its last level."""

    STATE = "state"
    HEALTH = "health"
    WINDOW = "window"
    STATISTICS = "statistics"
    PREDICTIONS = "predictions"
    CAPTURES = "captures"
    EVENTS = "events"
    REPLIES = "replies"
    DESIRED = "desired"
    ACKED = "acked"
    COMMANDS = "commands"
    FETCH = "fetch"
    """A device asks for blocks of a document."""
    BLOCKS = "blocks"
    """They come, below it by the transfer they are for."""


MODEL_CHANNELS = frozenset(
    {Channel.WINDOW, Channel.STATISTICS, Channel.PREDICTIONS, Channel.CAPTURES}
)
"""Channels below `models/<model>/`."""

DOWN_CHANNELS = frozenset({Channel.DESIRED, Channel.ACKED, Channel.COMMANDS, Channel.BLOCKS})
"""Channels only the controller publishes on; all others only the device."""

RETAINED_CHANNELS = frozenset({Channel.STATE, Channel.DESIRED, Channel.ACKED})


@dataclass(frozen=True, slots=True)
class Topic:
    """One parsed topic. `model` is set exactly on the channels of `MODEL_CHANNELS`."""

    site: SiteId
    device: DeviceId
    channel: Channel
    model: ModelName | None = None
    transfer: str | None = None
    """Set exactly on blocks."""


def format_topic(topic: Topic) -> str:
    """Return the topic string; the names in `topic` are trusted to be valid."""
    base = f"{ROOT}/{topic.site}/{topic.device}"
    if topic.model is not None:
        return f"{base}/models/{topic.model}/{topic.channel.value}"
    if topic.transfer is not None:
        return f"{base}/{topic.channel.value}/{topic.transfer}"
    return f"{base}/{topic.channel.value}"


def parse_topic(text: str) -> Topic:
    """Parse a topic string, or raise `InvalidInputError`."""
    levels = text.split("/")
    names = levels[2:4]
    if text.startswith(ROOT + "/") and len(names) == 2 and all(map(is_name, names)):
        site, device = SiteId(names[0]), DeviceId(names[1])
        match levels[4:]:
            case ["blocks", transfer] if is_name(transfer):
                return Topic(site, device, Channel.BLOCKS, transfer=transfer)
            case [last] if (channel := _CHANNELS.get(last)) and channel not in _DEEPER:
                return Topic(site, device, channel)
            case ["models", model, last] if (
                (channel := _CHANNELS.get(last)) and channel in MODEL_CHANNELS and is_name(model)
            ):
                return Topic(site, device, channel, ModelName(model))
    raise InvalidInputError(f"topic {text[:200]!r}: not a topic of {ROOT}")


def up_filters(site: str = "+") -> list[str]:
    """Subscription filters of everything that devices of `site` report."""
    return [
        f"{ROOT}/{site}/+/models/+/{channel.value}"
        if channel in MODEL_CHANNELS
        else f"{ROOT}/{site}/+/{channel.value}"
        for channel in Channel
        if channel not in DOWN_CHANNELS and channel is not Channel.FETCH
    ]


def fetch_filter(site: str = "+") -> str:
    """Subscription filter of what devices of `site` ask for in blocks."""
    return f"{ROOT}/{site}/+/{Channel.FETCH.value}"


_DEEPER = MODEL_CHANNELS | {Channel.BLOCKS}
_CHANNELS = {channel.value: channel for channel in Channel}
