"""A load of QoS 1 messages from many devices, made by one cheap process.

    python -m benchmarks.mqtt_load PLAN.json

Raw MQTT 3.1.1 over plain sockets: packets are encoded before the clock starts and up to
`in_flight` are unacknowledged per connection, so the load costs far less than the broker and
the subscriber under measurement. Prints one JSON line: when it started, ended, and how many
were acknowledged.

The plan holds {"host", "port", "in_flight", "clients": [{"id", "username", "password",
"messages": [[topic, payload], …]}]}.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

CONNECT_SECONDS = 10.0
LOAD_SECONDS = 300.0
CHUNK = 64
_PUBACK = b"\x40\x02"


def main() -> int:
    """Send the load that the plan file describes."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps(asyncio.run(send_load(plan))), flush=True)
    return 0


async def send_load(plan: dict[str, Any]) -> dict[str, Any]:
    """Connect all, then send all at once; return times and the number acknowledged."""
    packets = [_publish_packets(client["messages"]) for client in plan["clients"]]
    async with asyncio.timeout(CONNECT_SECONDS):
        links = [await connect(plan, client) for client in plan["clients"]]
    started = time.time()
    async with asyncio.timeout(LOAD_SECONDS):
        await asyncio.gather(
            *(
                _send(reader, writer, own, plan["in_flight"])
                for (reader, writer), own in zip(links, packets, strict=True)
            )
        )
    ended = time.time()
    for _, writer in links:
        writer.write(b"\xe0\x00")  # DISCONNECT, so that no last will is sent
        await writer.drain()
        writer.close()
    return {"started": started, "ended": ended, "acknowledged": sum(map(len, packets))}


async def connect(
    plan: dict[str, Any], client: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Log in as `client` at the plan's broker."""
    reader, writer = await asyncio.open_connection(plan["host"], plan["port"])
    body = _text("MQTT") + b"\x04" + b"\xc2" + struct.pack(">H", 600)
    body += _text(client["id"]) + _text(client["username"]) + _text(client["password"])
    writer.write(b"\x10" + _length(len(body)) + body)
    answer = await reader.readexactly(4)
    if answer != b"\x20\x02\x00\x00":
        raise ConnectionRefusedError(f"client {client['id']}: broker answered {answer.hex()}")
    return reader, writer


async def _send(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    packets: list[bytes],
    in_flight: int,
) -> None:
    """Send in chunks, never more than `in_flight` ahead of the acknowledgements."""
    sent = acknowledged = 0
    while acknowledged < len(packets):
        while sent < len(packets) and sent - acknowledged < in_flight:
            size = min(CHUNK, in_flight - (sent - acknowledged))
            writer.write(b"".join(packets[sent : sent + size]))
            sent = min(len(packets), sent + size)
        await writer.drain()
        head = await reader.readexactly(4)
        if head[:2] != _PUBACK:
            raise ConnectionError(f"expected PUBACK, got {head.hex()}")
        acknowledged += 1


def _publish_packets(messages: list[list[str]]) -> list[bytes]:
    return [
        publish_packet(topic, payload, index % 65_535 + 1)
        for index, (topic, payload) in enumerate(messages)
    ]


def publish_packet(topic: str, payload: str, mid: int) -> bytes:
    """A PUBLISH of QoS 1."""
    body = _text(topic) + struct.pack(">H", mid) + payload.encode()
    return b"\x32" + _length(len(body)) + body


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def _length(value: int) -> bytes:
    """MQTT's variable-length integer."""
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | 0x80 if value else digit)
        if not value:
            return bytes(out)


if __name__ == "__main__":
    sys.exit(main())
