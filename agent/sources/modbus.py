"""Registers of a Modbus/TCP device, polled at a rate.

Each feature is a register (or two, or four) with a type, a word order, and a scale; registers that
lie close together are read with one request. A device that refuses a register leaves that feature
missing; a poll without any answer is one row `not-read`. Needs the extra `agent-modbus`.
"""

from __future__ import annotations

import array
import asyncio
import logging
import math
import random
import struct
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from agent.options import Key, find_problems, with_defaults
from agent.ports import Samples
from agent.sources.kinds import SourceContext, SourceKind
from agent.sources.tally import Tally

NOT_READ = "not-read"
"""Dropped: the device did not answer a poll."""
BACKOFF_SECONDS = (0.5, 60.0)
MAX_REGISTERS, MAX_BITS = 125, 2000
"""In one request. Source: Modbus application protocol V1.1b3, 6.1 and 6.3."""
MAX_HOLE = 8
"""Registers that nobody asked for and that are read to save a request."""

Table = Literal["holding", "input", "coil", "discrete"]
_FORMATS = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
    "float32": "f", "float64": "d",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Register:
    """Where a feature lies, and how its bits are read."""

    feature: str
    address: int
    table: Table = "holding"
    type: str = "int16"
    word_order: str = "big"
    byte_order: str = "big"
    scale: float = 1.0
    offset: float = 0.0

    @property
    def words(self) -> int:
        """Registers (or bits) it takes."""
        return 1 if self.type == "bool" else struct.calcsize("=" + _FORMATS[self.type]) // 2

    def decode(self, words: Sequence[int]) -> float:
        """The value in its registers."""
        if self.type == "bool":
            return float(bool(words[0]))
        ordered = words if self.word_order == "big" else words[::-1]
        order = ">" if self.byte_order == "big" else "<"
        data = struct.pack(f"{order}{len(ordered)}H", *ordered)
        (raw,) = struct.unpack(f">{_FORMATS[self.type]}", data)
        return float(raw) * self.scale + self.offset


@dataclass(frozen=True, slots=True)
class Request:
    """One read of adjacent registers."""

    table: Table
    address: int
    count: int
    registers: tuple[Register, ...]


def plan_requests(registers: list[Register]) -> list[Request]:
    """As few reads as the protocol's limits allow, without long holes."""
    found: list[Request] = []
    for one in sorted(registers, key=lambda r: (r.table, r.address)):
        most = MAX_BITS if one.table in ("coil", "discrete") else MAX_REGISTERS
        end = one.address + one.words
        if found and found[-1].table == one.table:
            last = found[-1]
            hole = one.address - (last.address + last.count)
            count = max(end - last.address, last.count)
            if hole <= MAX_HOLE and count <= most:
                found[-1] = Request(last.table, last.address, count, (*last.registers, one))
                continue
        found.append(Request(one.table, one.address, one.words, (one,)))
    return found


class ModbusSource:
    """`agent.ports.Source` of one row a poll."""

    live = True

    def __init__(
        self,
        host: str,
        port: int,
        unit_id: int,
        registers: list[Register],
        tally: Tally,
        *,
        rate_hz: float,
        timeout_seconds: float,
    ) -> None:
        self._host, self._port, self._unit_id = host, port, unit_id
        self._requests = plan_requests(registers)
        self._known = {one.feature for one in registers}
        self._tally = tally
        self._rate_hz = rate_hz
        self._timeout_seconds = timeout_seconds
        self._features: list[str] = []

    def select(self, features: list[str]) -> None:
        """Give these features; one without a register is always missing, and told."""
        self._features = features
        for name in features:
            if name not in self._known:
                self._tally.tell_once(f"no-register-{name}", f"modbus: no register for {name}")

    def take_dropped(self) -> dict[str, int]:
        """Polls without an answer since the last call."""
        return self._tally.take()

    async def batches(self) -> AsyncGenerator[Samples, None]:
        """Poll for ever; a poll that is due while another runs is skipped."""
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what fails is told here
        delay = BACKOFF_SECONDS[0]
        while True:
            client = AsyncModbusTcpClient(
                self._host,
                port=self._port,
                timeout=self._timeout_seconds,
                retries=1,
                reconnect_delay=0.0,
            )
            try:
                if await client.connect():
                    self._tally.forget(NOT_READ)
                    async for samples in self._poll(client):
                        delay = BACKOFF_SECONDS[0]
                        yield samples
                self._fail("no connection")
            except (ModbusException, OSError) as error:
                self._fail(str(error))
            finally:
                client.close()
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = min(delay * 2, BACKOFF_SECONDS[1])

    def _fail(self, words: str) -> None:
        self._tally.drop(NOT_READ, f"modbus {self._host}:{self._port}: {words}")

    async def _poll(self, client: AsyncModbusTcpClient) -> AsyncGenerator[Samples, None]:
        due = time.monotonic()
        while client.connected:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            due = max(due + 1 / self._rate_hz, time.monotonic())
            found: dict[str, float] = {}
            for request in self._requests:
                found |= await self._read(client, request)
            row = array.array("f", [found.get(name, math.nan) for name in self._features])
            if sys.byteorder == "big":
                row.byteswap()
            yield Samples([time.time_ns() // 1_000_000], row.tobytes(), len(row))

    async def _read(self, client: AsyncModbusTcpClient, request: Request) -> dict[str, float]:
        read = {
            "holding": client.read_holding_registers,
            "input": client.read_input_registers,
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
        }[request.table]
        answer = await read(request.address, count=request.count, device_id=self._unit_id)
        if answer.isError():
            where = f"{request.table} {request.address} to {request.address + request.count - 1}"
            self._tally.tell_once(f"refused-{where}", f"modbus: {where}: {answer}")
            return {}
        is_bits = request.table in ("coil", "discrete")
        words = [int(bit) for bit in answer.bits] if is_bits else answer.registers
        return {
            one.feature: one.decode(
                words[one.address - request.address : one.address - request.address + one.words]
            )
            for one in request.registers
        }


_KEYS = {
    "host": Key("text"),
    "port": Key("integer", 502, 1, 65535),
    "unit_id": Key("integer", 1, 0, 255),
    "rate_hz": Key("number", 1.0, 0.0001, 1000),
    "timeout_seconds": Key("number", 3.0, 0.05, 60),
    "registers": Key("tables"),
}
_REGISTER_KEYS = {
    "feature": Key("text"),
    "address": Key("integer", high=65535),
    "table": Key("text", "holding", choices=("holding", "input", "coil", "discrete")),
    "type": Key("text", "", choices=("", *_FORMATS, "bool")),
    "word_order": Key("text", "big", choices=("big", "little")),
    "byte_order": Key("text", "big", choices=("big", "little")),
    "scale": Key("number", 1.0, -1e12),
    "offset": Key("number", 0.0, -1e12),
}


def _register(table: dict[str, Any]) -> Register:
    options = with_defaults(table, _REGISTER_KEYS)
    is_bits = options["table"] in ("coil", "discrete")
    return Register(**{**options, "type": options["type"] or ("bool" if is_bits else "int16")})


def _problems(at: str, options: dict[str, Any]) -> list[str]:
    found = [] if options["registers"] else [f"{at}.registers: is empty"]
    for number, table in enumerate(options["registers"]):
        here = f"{at}.registers[{number}]"
        problems = find_problems(here, table, _REGISTER_KEYS)
        found += problems
        is_bits = table.get("table") in ("coil", "discrete")
        if not problems and is_bits and table.get("type", "bool") != "bool":
            found.append(f"{here}.type: expected bool, got {table['type']!r}")
    return found


def _make(options: dict[str, Any], context: SourceContext) -> ModbusSource:
    return ModbusSource(
        options["host"],
        options["port"],
        options["unit_id"],
        [_register(table) for table in options["registers"]],
        context.tally,
        rate_hz=options["rate_hz"],
        timeout_seconds=options["timeout_seconds"],
    )


MODBUS = SourceKind(_KEYS, _make, _problems)
