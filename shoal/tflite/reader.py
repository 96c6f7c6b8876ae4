"""Reads a `.tflite` without a runtime: what it needs, what goes in and out, whether it is sound.

    >>> read_model(b"not a model", "pump.tflite")
    Traceback (most recent call last):
    shoal.tflite.flatbuffer.BrokenFileError: pump.tflite: expected TFL3 at byte 4, got b'a mo' in \
11 bytes

Runtimes trust a file: tflite-runtime 2.14 dies of a wrong offset. So everything that a runtime
follows is checked here first: indices, sizes of constants, order of operators, no operator that
writes into a constant. One clear error, of code `bad-model`, whatever is wrong. Pure Python; the
agent's short-lived processes and workers use it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from shoal.tflite.flatbuffer import I8, I32, U8, U32, U64, BrokenFileError, Source, Table
from shoal.tflite.operators import CUSTOM, operator_name

SCHEMA_VERSION = 3
MAX_RANK = 8
MAX_TENSOR_BYTES = 2**40
BITS = {
    "FLOAT32": 32, "FLOAT16": 16, "INT32": 32, "UINT8": 8, "INT64": 64, "STRING": 0, "BOOL": 8,
    "INT16": 16, "COMPLEX64": 64, "INT8": 8, "FLOAT64": 64, "COMPLEX128": 128, "UINT64": 64,
    "RESOURCE": 0, "VARIANT": 0, "UINT32": 32, "UINT16": 16, "INT4": 4, "BFLOAT16": 16,
}  # fmt: skip
"""Tensor types in the order of the schema; 0: no fixed size."""
TYPES = tuple(BITS)
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. `scales` is empty without quantisation, one a channel where there are more."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    constant_bytes: int = 0
    is_variable: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes it takes in memory; an unknown dimension counts as 1."""
        return -(-math.prod(max(n, 1) if n < 0 else n for n in self.shape) * BITS[self.dtype] // 8)

    @property
    def values(self) -> int:
        """Numbers in it."""
        return math.prod(abs(n) for n in self.shape)

    def __str__(self) -> str:
        shape = "×".join(map(str, self.shape)) or "scalar"
        text = f"{self.name or 'unnamed'} {self.dtype.lower()} {shape}"
        if len(self.scales) == 1:
            zero = self.zero_points[0] if self.zero_points else 0
            return f"{text}, scale {self.scales[0]:.6g}, zero point {zero}"
        return f"{text}, {len(self.scales)} scales" if self.scales else text


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a `.tflite` file is."""

    file_bytes: int
    description: str
    min_runtime: str
    """Lowest TensorFlow Lite version by the file's own metadata; "" where it does not say."""
    operators: dict[str, int]
    """Name → highest version used; custom ones as `CUSTOM:<code>`."""
    operator_count: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    tensor_count: int
    weight_bytes: int
    peak_bytes: int
    """Most that activations take at one time, in the order of the file."""
    has_float16_weights: bool

    @property
    def memory_bytes(self) -> int:
        """Memory to plan for: covered every model measured with LiteRT."""
        files = 4 if self.has_float16_weights else 2
        return files * self.file_bytes + 3 * self.peak_bytes + MEBIBYTE

    @property
    def memory_mb(self) -> int:
        """The same in MiB, rounded up."""
        return -(-self.memory_bytes // MEBIBYTE)


def read_model(data: bytes | bytearray | memoryview, what: str = "model") -> ModelFacts:
    """Read and check a file, or raise `BrokenFileError`; `what` names it in the sentence."""
    source = Source(data, what)
    model = source.root(b"TFL3")
    if (version := model.scalar(0, U32)) != SCHEMA_VERSION:
        raise source.broken(f"expected schema version {SCHEMA_VERSION}, got {version}")
    constants = [_constant_bytes(source, one) for one in model.tables(4)]
    codes = [_operator_code(source, one) for one in model.tables(1)]
    graphs = [_Graph(source, one, constants, codes) for one in model.tables(2)]
    if not graphs:
        raise source.broken("has no graph")
    _check_signatures(source, model, graphs)
    main = graphs[0]
    return ModelFacts(
        file_bytes=source.size,
        description=model.text(3),
        min_runtime=_min_runtime(source, model),
        operators=_highest(use for graph in graphs for use in graph.used),
        operator_count=sum(len(graph.used) for graph in graphs),
        inputs=tuple(main.tensors[i] for i in main.inputs),
        outputs=tuple(main.tensors[i] for i in main.outputs),
        tensor_count=sum(len(graph.tensors) for graph in graphs),
        weight_bytes=sum(constants),
        peak_bytes=sum(graph.peak_bytes() for graph in graphs),
        has_float16_weights=any(
            t.dtype == "FLOAT16" and t.constant_bytes for graph in graphs for t in graph.tensors
        ),
    )


def _constant_bytes(source: Source, buffer: Table) -> int:
    """Length of a buffer's data, inside the flatbuffer or, in large files, behind it."""
    offset, size = buffer.scalar(1, U64), buffer.scalar(2, U64)
    if offset > 1:
        if offset + size > source.size:
            raise source.broken(f"a buffer of {size} bytes at {offset} lies outside its bytes")
        return size
    return len(buffer.span(0))


def _operator_code(source: Source, table: Table) -> tuple[str, int]:
    # older files have the narrow field only, newer ones both: the larger is meant
    code = max(table.scalar(0, I8), table.scalar(3, I32))
    version = table.scalar(2, I32, 1)
    if not 0 <= code < 1000 or not 0 <= version < 1000:
        raise source.broken(f"operator code {code} of version {version}: is none")
    name = operator_name(code)
    return (f"{name}:{table.text(1)[:80]}" if name == CUSTOM else name), version


class _Graph:
    """One graph, checked; `used` is (operator, version) of each step."""

    def __init__(
        self, source: Source, table: Table, constants: list[int], codes: list[tuple[str, int]]
    ) -> None:
        self._source = source
        self.tensors = [_tensor(source, one, constants) for one in table.tables(0)]
        self.inputs = self._indices(table.numbers(1, "i"), "graph input")
        self.outputs = self._indices(table.numbers(2, "i"), "graph output")
        self.used: list[tuple[str, int]] = []
        self._steps: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        written = {i for i, tensor in enumerate(self.tensors) if _is_there(tensor)}
        written.update(self.inputs)
        for step in table.tables(3):
            self._add(step, codes, written)
        if missing := set(self.outputs) - written:
            raise source.broken(f"graph output {min(missing)}: nothing writes it")

    def peak_bytes(self) -> int:
        """Bytes of activations alive at once, at most."""
        last = dict.fromkeys(self.outputs, len(self._steps))
        for number in range(len(self._steps) - 1, -1, -1):
            reads, writes = self._steps[number]
            for index in (*reads, *writes):
                last.setdefault(index, number)
        sizes = [0 if t.constant_bytes else t.size_bytes for t in self.tensors]
        alive = {i for i, t in enumerate(self.tensors) if t.is_variable} | set(self.inputs)
        now = peak = sum(sizes[i] for i in alive)
        dying: dict[int, list[int]] = {}
        for index, number in last.items():
            dying.setdefault(number, []).append(index)
        for number, (_, writes) in enumerate(self._steps):
            new = set(writes) - alive
            alive |= new
            now += sum(sizes[i] for i in new)
            peak = max(peak, now)
            for index in dying.get(number, ()):
                if index in alive and not self.tensors[index].is_variable:
                    alive.discard(index)
                    now -= sizes[index]
        return peak

    def _add(self, step: Table, codes: list[tuple[str, int]], written: set[int]) -> None:
        code = step.scalar(0, U32)
        if code >= len(codes):
            raise self._source.broken(f"operator code {code}: there are {len(codes)}")
        name = codes[code][0]
        where = f"operator {len(self._steps)} ({name})"
        reads = self._indices((i for i in step.numbers(1, "i") if i != -1), f"{where}, input")
        writes = self._indices(step.numbers(2, "i"), f"{where}, output")
        self._indices((i for i in step.numbers(8, "i") if i != -1), f"{where}, intermediate")
        if missing := set(reads) - written:
            raise self._source.broken(f"{where}: reads tensor {min(missing)} before it is written")
        for index in writes:
            if self.tensors[index].constant_bytes:
                raise self._source.broken(f"{where}: writes into constant tensor {index}")
        options = step.table(4)
        if options is not None and name in ("RESHAPE", "SQUEEZE"):
            options.numbers(0, "i")  # a vector that runtimes follow
        step.span(5)
        written.update(writes)
        self.used.append(codes[code])
        self._steps.append((reads, writes))

    def _indices(self, numbers: Iterable[int], what: str) -> tuple[int, ...]:
        found = tuple(numbers)
        for index in found:
            if not 0 <= index < len(self.tensors):
                raise self._source.broken(
                    f"{what}: tensor {index}, expected 0 to {len(self.tensors) - 1}"
                )
        return found


def _tensor(source: Source, table: Table, constants: list[int]) -> Tensor:
    name = table.text(3)[:200]
    what = f"tensor {name!r}"
    shape, kind, buffer = table.numbers(0, "i"), table.scalar(1, I8), table.scalar(2, U32)
    if len(shape) > MAX_RANK or any(n < -1 for n in shape):
        raise source.broken(f"{what}: shape {shape[: MAX_RANK + 1]}, at most {MAX_RANK} sizes ≥ 0")
    if not 0 <= kind < len(TYPES):
        raise source.broken(f"{what}: type {kind} is not known, expected 0 to {len(TYPES) - 1}")
    if buffer >= max(len(constants), 1):
        raise source.broken(f"{what}: buffer {buffer}, there are {len(constants)}")
    held = constants[buffer] if constants else 0
    scales, zeros = _quantisation(source, table, shape, what)
    variable = bool(table.scalar(5, U8))
    tensor = Tensor(name, shape, TYPES[kind], scales, zeros, held, variable)
    if tensor.size_bytes > MAX_TENSOR_BYTES:
        raise source.broken(f"{what}: {tensor.size_bytes} bytes, at most {MAX_TENSOR_BYTES}")
    table.numbers(7, "i")
    is_sparse = table.table(6) is not None
    if held and not is_sparse and held < tensor.size_bytes:
        raise source.broken(f"{what}: holds {held} bytes, its shape needs {tensor.size_bytes}")
    return tensor


def _quantisation(
    source: Source, table: Table, shape: tuple[int, ...], what: str
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    quantisation = table.table(4)
    if quantisation is None:
        return (), ()
    quantisation.floats(0)
    quantisation.floats(1)
    scales, zeros = quantisation.floats(2), quantisation.numbers(3, "q")
    if not all(map(math.isfinite, scales)):
        raise source.broken(f"{what}: a scale is not finite")
    if zeros and len(zeros) not in (1, len(scales)):
        raise source.broken(f"{what}: {len(zeros)} zero points for {len(scales)} scales")
    if len(scales) > 1:
        axis = quantisation.scalar(6, I32)
        if not 0 <= axis < len(shape) or shape[axis] != len(scales):
            raise source.broken(f"{what}: {len(scales)} scales on axis {axis} of shape {shape}")
    return scales, zeros


def _is_there(tensor: Tensor) -> bool:
    """Whether a step may read it before any has written it."""
    return bool(
        tensor.constant_bytes
        or tensor.is_variable
        or not tensor.size_bytes
        or tensor.dtype in ("RESOURCE", "VARIANT", "STRING")
    )


def _highest(uses: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, version in uses:
        found[name] = max(version, found.get(name, 0))
    return dict(sorted(found.items()))


def _min_runtime(source: Source, model: Table) -> str:
    buffers = list(model.tables(4))
    for index in model.numbers(5, "i"):
        if not 0 <= index < len(buffers):
            raise source.broken(f"metadata: buffer {index}, there are {len(buffers)}")
    for entry in model.tables(6):
        index = entry.scalar(1, U32)
        if index >= len(buffers):
            raise source.broken(f"metadata: buffer {index}, there are {len(buffers)}")
        if entry.text(0) == "min_runtime_version":
            text = bytes(buffers[index].span(0)[:16]).split(b"\0")[0].decode("ascii", "replace")
            return text if text.replace(".", "").isdigit() else ""
    return ""


def _check_signatures(source: Source, model: Table, graphs: list[_Graph]) -> None:
    for signature in model.tables(7):
        graph = signature.scalar(4, U32)
        if graph >= len(graphs):
            raise source.broken(f"signature: graph {graph}, there are {len(graphs)}")
        for field in (0, 1):
            for entry in signature.tables(field):
                index = entry.scalar(1, U32)
                if index >= len(graphs[graph].tensors):
                    raise source.broken(f"signature: tensor {index} is not there")
                entry.text(0)


__all__ = ["BrokenFileError", "ModelFacts", "Tensor", "read_model"]
