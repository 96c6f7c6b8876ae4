"""One MQTT 3.1.1 login, to see that a broker is up and knows an account.

It needs no MQTT client: one short packet out, four bytes back.

>>> connect_packet("a", "secret").hex()
'101800044d51545404c2000a0001610001610006736563726574'
"""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path

ACCEPTED = 0
UNREACHABLE = -1

_CLEAN, _CLEAN_WITH_LOGIN = 0x02, 0xC2
_KEEPALIVE_SECONDS = 10
_DISCONNECT = b"\xe0\x00"


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in, and by what: a password, or a certificate."""

    name: str
    password: str = ""
    context: ssl.SSLContext | None = None


def connect_packet(name: str, password: str = "") -> bytes:
    """A CONNECT of a clean session whose client id is its user name."""
    flags = _CLEAN_WITH_LOGIN if password else _CLEAN
    body = b"\x00\x04MQTT\x04" + struct.pack(">BH", flags, _KEEPALIVE_SECONDS)
    for text in (name, name, password) if password else (name,):
        body += struct.pack(">H", len(text)) + text.encode("ascii")
    if len(body) < 128:
        return bytes((0x10, len(body))) + body
    return bytes((0x10, len(body) % 128 | 0x80, len(body) // 128)) + body


async def log_in(host: str, port: int, login: Login, seconds: float) -> int:
    """Log in and out; return the CONNACK's code (0 accepted), or -1 if there was none."""
    try:
        async with asyncio.timeout(seconds):
            return await _log_in(
                *await asyncio.open_connection(host, port, ssl=login.context), login
            )
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return UNREACHABLE


async def log_in_locally(socket: Path, login: Login, seconds: float) -> int:
    """The same over a socket in a folder, however long its path is."""
    try:
        folder = os.open(socket.parent, os.O_PATH)
        try:
            async with asyncio.timeout(seconds):
                short = f"/proc/self/fd/{folder}/{socket.name}"
                return await _log_in(*await asyncio.open_unix_connection(short), login)
        finally:
            os.close(folder)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return UNREACHABLE


async def _log_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, login: Login) -> int:
    try:
        writer.write(connect_packet(login.name, login.password))
        answer = await reader.readexactly(4)
        writer.write(_DISCONNECT)
        return answer[3] if answer[:2] == b"\x20\x02" else UNREACHABLE
    finally:
        writer.close()
