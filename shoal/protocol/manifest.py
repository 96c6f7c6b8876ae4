"""The package manifest: what a release is, in its author's words.

A package (`*.shoal`) is the manifest and the files it names, each by SHA-256. Everything a
device does with a model comes from here: which file for which hardware, what goes in, which
closed list of steps surrounds it, what must come out, what normal data looks like, and when
to give up on it. No code travels in a package.

`decode_manifest` checks shape and cross-references; whether the files hold what they should is
checked where they are opened (`shoal.package`, the agent's updater).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from shoal.errors import InvalidInputError
from shoal.ids import DIGEST_PATTERN, NAME_PATTERN, VERSION_PATTERN
from shoal.protocol import SCHEMA
from shoal.protocol.steps import (
    Binarise as Binarise,
)
from shoal.protocol.steps import (
    ClassScores as ClassScores,
)
from shoal.protocol.steps import (
    Clip as Clip,
)
from shoal.protocol.steps import (
    Dequantise as Dequantise,
)
from shoal.protocol.steps import (
    Field as Field,
)
from shoal.protocol.steps import (
    Log as Log,
)
from shoal.protocol.steps import (
    OneHot as OneHot,
)
from shoal.protocol.steps import (
    PostStep as PostStep,
)
from shoal.protocol.steps import (
    PreStep as PreStep,
)
from shoal.protocol.steps import (
    RawOutputs as RawOutputs,
)
from shoal.protocol.steps import (
    ReconstructionError as ReconstructionError,
)
from shoal.protocol.steps import (
    Rescale as Rescale,
)
from shoal.protocol.steps import (
    Scale as Scale,
)
from shoal.protocol.steps import (
    Sigmoid as Sigmoid,
)
from shoal.protocol.steps import (
    Softmax as Softmax,
)
from shoal.protocol.steps import (
    Spectrum as Spectrum,
)
from shoal.protocol.steps import (
    Threshold as Threshold,
)
from shoal.protocol.steps import (
    WindowFeatures as WindowFeatures,
)
from shoal.protocol.steps import find_step_problems

MAX_MANIFEST_BYTES = 1024 * 1024

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Version = Annotated[str, Meta(pattern=VERSION_PATTERN)]
Sha256 = Annotated[str, Meta(pattern=DIGEST_PATTERN)]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Positive = Annotated[int, Meta(ge=1, le=2**40)]


class FileEntry(Struct, kw_only=True, frozen=True):
    """One file of the package; on a device and in the controller it is stored by its hash."""

    name: FileName
    sha256: Sha256
    length: Annotated[int, Meta(ge=0, le=2**32)]


class Sensor(Struct, kw_only=True, frozen=True):
    """A quantity that a device measures."""

    name: Field
    unit: str = ""
    rate_hz: Annotated[float, Meta(ge=0)] = 0.0
    """How often, at least; 0: however often."""


class Requires(Struct, kw_only=True, frozen=True):
    """What a variant needs of a device, with the keys of a hardware profile. Absent: anything."""

    arch: list[str] = []
    """Any one of these, as `platform.machine()` says it."""
    memory_mb: int = 0
    disk_mb: int = 0
    cpu_cores: int = 0
    cpu_features: list[str] = []
    """All of these."""
    delegates: list[str] = []
    """All of these."""
    libc: str = ""
    """Lowest, by name: glibc 2.31."""
    python: str = ""
    """Lowest version of the agent's Python."""
    runtime_version: str = ""
    """Lowest, as TensorFlow Lite counts (2.14), or of one runtime by name (ai-edge-litert 2.1)."""
    operators: dict[str, int] = {}
    """TFLite operators with the lowest version of each; `CUSTOM:<code>` for custom ones."""
    sensors: list[Sensor] = []
    """All of these."""


class Variant(Struct, kw_only=True, frozen=True):
    """One file that realises the model for some hardware; the highest fitting priority wins."""

    name: Field
    runtime: Name = "tflite"
    """Kind of file: tflite, onnx or numpy; a third party's adapter may add one."""
    file: FileName
    precision: Literal["float32", "float16", "int8"] = "float32"
    priority: int = 0
    requires: Requires = Requires()


class Feature(Struct, kw_only=True, frozen=True):
    """One input value of a row, in the units the sensor gives."""

    name: Field
    unit: str = ""
    low: float | None = None
    """Values outside low…high are counted out of range; they still go to the model."""
    high: float | None = None
    missing: Literal["drop", "fill", "hold"] = "drop"
    """drop: a row without this value is dropped and counted as such; fill: `fill` is used; hold:
    the last value is used while it is no older than `max_age_seconds`, after that as drop."""
    fill: float = 0.0
    max_age_seconds: NotNegative = 0.0
    """With hold; 0: any age."""


class OutputField(Struct, kw_only=True, frozen=True):
    """One named output value after postprocessing; the range is what sane answers stay in."""

    name: Field
    unit: str = ""
    low: float | None = None
    high: float | None = None


class Contract(Struct, kw_only=True, frozen=True):
    """What goes in and what comes out.

    A window is the last `window_rows` rows, flattened row by row into the input tensor of
    `window_rows × len(features)` values; a new one starts every `stride_rows` rows.
    """

    features: Annotated[list[Feature], Meta(min_length=1, max_length=65536)]
    outputs: Annotated[list[OutputField], Meta(min_length=1, max_length=64)]
    window_rows: Annotated[int, Meta(ge=1, le=4096)] = 1
    stride_rows: Annotated[int, Meta(ge=1, le=4096)] = 1
    rate_hz: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    """Rate the model was made for; 0: any."""
    resample: Literal["", "last", "mean", "linear"] = ""
    """How the device turns rows of any rate into rows of `rate_hz`; "": rows go on as they come."""
    max_gap_seconds: NotNegative = 0.0
    """A longer pause between two rows begins windows and resampling anew; 0: ten periods of
    `rate_hz` where it resamples, else any pause goes on."""
    preprocess: list[PreStep] = []
    postprocess: list[PostStep] = []
    profile_features: bool = True
    """Whether the device keeps statistics of every feature (not for images)."""


class Golden(Struct, kw_only=True, frozen=True):
    """Golden samples: raw windows and the outputs they must give, before any slot switches.

    The file is JSON: {"inputs": [[…]], "outputs": [[…]]}; each input is a flattened window in
    sensor units, each output the values of `Contract.outputs`. Tolerances are absolute
    plus relative, per kernel family, since int8 kernels differ by up to 10 steps
    between families (RUNTIMES measurements).
    """

    file: FileName
    absolute: dict[str, float] = field(default_factory=lambda: {"xnnpack": 1e-3, "reference": 1e-3})
    relative: float = 0.02


class Probation(Struct, kw_only=True, frozen=True):
    """When a device gives a new release up by itself. Ratios 0 to 1."""

    seconds: float = 60.0
    min_rows: int = 50
    """Fewer answered rows than this never commit; probation goes on."""
    max_failed_ratio: float = 0.02
    max_out_of_range_ratio: float = 0.2
    """Share of answers outside an output's declared range, or not finite."""
    max_latency_ratio: float = 3.0
    """p95 against the release before, on the same device."""
    max_memory_ratio: float = 3.0
    """Memory of the worker against the release before; a rise below 16 MiB is never too much."""
    max_crashes: int = 1


class Shadow(Struct, kw_only=True, frozen=True):
    """A run of a candidate beside the active release, on the same windows, before it answers.

    It ends with `rows` rows compared or after `seconds`, whichever comes first; 0 is no limit,
    and 0 of both is no shadow run. The operator may set both in an assignment.
    """

    rows: Annotated[int, Meta(ge=0, le=10**9)] = 0
    seconds: Annotated[float, Meta(ge=0, le=30 * 86400)] = 0.0
    min_rows: Annotated[int, Meta(ge=0, le=10**9)] = 20
    """Fewer compared rows than this decide nothing: the candidate goes on to its probation."""
    min_label_agreement: float = 0.8
    """Share of equal labels below which the candidate is refused."""
    max_mean_difference: float | None = None
    """Mean absolute difference of an output above which it is refused; None: not judged."""


class CapturePolicy(Struct, kw_only=True, frozen=True):
    """Which windows a device keeps for a person to look at, and how many. By default none.

    They stay on the device until a command asks for them; `redact` never gets there.
    """

    low_margin: Annotated[float, Meta(ge=0)] | None = None
    """Answers closer than this to the other label: to a threshold, or 2 c - 1 of a best score c."""
    out_of_range: bool = False
    """Answers outside an output's range, or not finite."""
    disagreement: bool = False
    """Windows that a candidate in its shadow run labels otherwise."""
    drift: Annotated[float, Meta(gt=0)] | None = None
    """One window a second while a feature's noise-corrected PSI against the baseline is above."""
    one_in: Annotated[int, Meta(ge=0, le=2**40)] = 0
    """The first of every so many windows; 0: none."""
    per_day: Annotated[int, Meta(ge=1, le=100_000)] = 200
    max_bytes_per_day: Annotated[int, Meta(ge=1024, le=2**32)] = 4 * 2**20
    keep_days: Annotated[float, Meta(gt=0, le=3650)] = 30.0
    redact: list[Field] = []
    """Features that are never stored."""

    @property
    def active(self) -> bool:
        """Whether anything is captured."""
        limits = (self.low_margin, self.drift)
        return (
            self.out_of_range
            or self.disagreement
            or self.one_in > 0
            or any(limit is not None for limit in limits)
        )


class Gates(Struct, kw_only=True, frozen=True):
    """Limits a rollout's gates take from the author unless the operator sets others."""

    max_failed_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.02
    max_latency_ratio: Annotated[float, Meta(gt=0, le=1e6)] = 1.5
    max_prediction_shift: Annotated[float, Meta(ge=0, le=1e6)] = 0.5
    """Noise-corrected PSI of outputs, canary against its own past, less the controls' change."""
    min_rows: Annotated[int, Meta(ge=1, le=2**53)] = 100
    harmless_failed_difference: Annotated[float, Meta(ge=0, le=1)] = 0.005
    """Rows that may fail more than the control's, by the test of significance."""
    harmless_latency_difference: Annotated[float, Meta(ge=0, le=1e6)] = 0.1
    """Share by which p95 may rise more than the control's."""
    harmless_prediction_difference: Annotated[float, Meta(ge=0, le=1e6)] = 0.1
    """How far answers may move more than the control's: deviations of an output with a unit, or
    the arcsine of the root of a label's share. More than this, and more than chance, stops."""


class ModelCard(Struct, kw_only=True, frozen=True):
    """For people: what it is for and how well it does."""

    summary: str = ""
    intended_use: str = ""
    limits: str = ""
    licence: str = ""
    metrics: dict[str, float] = {}
    owner: str = ""
    training_data: str = ""
    text: str = ""
    """More, as Markdown."""


class Lineage(Struct, kw_only=True, frozen=True):
    """Where it came from, so that it can be made again."""

    dataset: str = ""
    dataset_sha256: str = ""
    rows: int = 0
    commit: str = ""
    parent: str = ""
    converter: str = ""
    seed: int | None = None
    source: str = ""
    """Where the model itself came from, e.g. an MLflow URI with its run."""
    libraries: dict[str, str] = {}
    """Versions of what trained and packaged it."""


class Manifest(Struct, kw_only=True, frozen=True):
    """One release of one model."""

    schema: int = SCHEMA
    model: Name
    version: Version
    sequence: Positive
    """Strictly rising per model; a device refuses to go below the highest it has committed
    unless the director assigns it as a rollback to a release it knows."""
    created: str
    """ISO 8601, UTC."""
    files: Annotated[list[FileEntry], Meta(min_length=1, max_length=64)]
    variants: Annotated[list[Variant], Meta(min_length=1, max_length=16)]
    contract: Contract
    golden: Golden | None = None
    baseline: FileName | None = None
    """JSON of `shoal.statistics.Baseline`."""
    probation: Probation = Probation()
    shadow: Shadow = Shadow()
    gates: Gates = Gates()
    capture: CapturePolicy = CapturePolicy()
    deadline_ms: float = 0.0
    """Longest a micro-batch may take; 0: the agent decides from golden latency."""
    card: ModelCard = ModelCard()
    lineage: Lineage = Lineage()

    def file(self, name: str) -> FileEntry:
        """The entry of a file that the manifest names."""
        return next(entry for entry in self.files if entry.name == name)


class Release(Struct, kw_only=True, frozen=True):
    """The statement a release key signs: this manifest, and no other, is this release."""

    schema: int = SCHEMA
    model: Name
    version: Version
    sequence: Positive
    manifest_sha256: Sha256
    manifest_length: Positive


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode deterministically: same manifest, same bytes, same hash."""
    return msgspec.json.encode(manifest, order="deterministic")


def decode_manifest(data: bytes) -> Manifest:
    """Decode and check a manifest, or raise `InvalidInputError`."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidInputError(f"manifest: {len(data)} bytes, at most {MAX_MANIFEST_BYTES} read")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"manifest: {error}", code="invalid-manifest") from error
    if problems := find_problems(manifest):
        raise InvalidInputError("manifest: " + "; ".join(problems), code="invalid-manifest")
    return manifest


def find_problems(manifest: Manifest) -> list[str]:
    """Everything wrong between the parts of a manifest, as sentences with key paths."""
    problems = []
    if manifest.schema > SCHEMA:
        problems.append(f"schema: {manifest.schema}, this side reads up to {SCHEMA}")
    names = [entry.name for entry in manifest.files]
    if len(set(names)) != len(names):
        problems.append("files: a name stands twice")
    wanted = {f"variants.{v.name}.file": v.file for v in manifest.variants}
    if manifest.golden is not None:
        wanted["golden.file"] = manifest.golden.file
    if manifest.baseline is not None:
        wanted["baseline"] = manifest.baseline
    problems += [
        f"{key}: {name} is not in files" for key, name in wanted.items() if name not in names
    ]
    contract = manifest.contract
    problems += find_step_problems(
        [feature.name for feature in contract.features], contract.window_rows, contract.preprocess
    )
    if contract.resample and not contract.rate_hz:
        problems.append("contract.resample: needs rate_hz")
    if contract.stride_rows > contract.window_rows:
        problems.append("contract.stride_rows: above window_rows, so rows would go unseen")
    known = {feature.name for feature in contract.features}
    problems += [
        f"capture.redact: no feature {name!r}"
        for name in manifest.capture.redact
        if name not in known
    ]
    fields = {output.name for output in contract.outputs}
    for index, post in enumerate(contract.postprocess):
        if isinstance(post, Threshold | Rescale) and post.field not in fields:
            problems.append(f"contract.postprocess[{index}].field: no output {post.field!r}")
    return problems
