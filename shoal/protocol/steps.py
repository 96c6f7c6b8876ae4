"""The closed list of steps around a model: what a package may ask to be computed.

Before the model, steps on rows come first, then at most one that turns a window into features,
then steps on those; `find_step_problems` follows the width through all of them. No code travels
in a package: what is not here cannot be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

Field = Annotated[str, Meta(min_length=1, max_length=80)]


class Scale(Struct, kw_only=True, frozen=True, tag="scale", tag_field="op"):
    """Preprocess: (value - mean) / std, one number a column."""

    mean: list[float]
    std: list[float]


class Clip(Struct, kw_only=True, frozen=True, tag="clip", tag_field="op"):
    """Preprocess: limit every value to low…high, after the steps before it."""

    low: float
    high: float


class Log(Struct, kw_only=True, frozen=True, tag="log", tag_field="op"):
    """Preprocess: natural logarithm of value + offset, of at least `floor`; of the features
    named, or of every column."""

    features: list[Field] = []
    offset: float = 0.0
    floor: float = 1e-6


class Binarise(Struct, kw_only=True, frozen=True, tag="binarise", tag_field="op"):
    """Preprocess: 1 where a feature is above a limit, else 0."""

    feature: Field
    above: float = 0.5


class OneHot(Struct, kw_only=True, frozen=True, tag="one_hot", tag_field="op"):
    """Preprocess: one column a known value instead of the feature's own; another value is all
    zeros. The columns stand at the end of the row."""

    feature: Field
    values: Annotated[list[float], Meta(min_length=1, max_length=1024)]


Statistic = Literal["mean", "std", "rms", "min", "max", "peak_to_peak", "crest", "kurtosis", "last"]


class WindowFeatures(Struct, kw_only=True, frozen=True, tag="window_features", tag_field="op"):
    """Preprocess: statistics of each column over the window, column by column."""

    statistics: Annotated[list[Statistic], Meta(min_length=1, max_length=9)]


class Spectrum(Struct, kw_only=True, frozen=True, tag="spectrum", tag_field="op"):
    """Preprocess: mean amplitude in `bands` equal bands from above 0 to half the rate, of each
    column less its mean, through a Hann window; column by column."""

    bands: Annotated[int, Meta(ge=1, le=2048)]


class ReconstructionError(
    Struct, kw_only=True, frozen=True, tag="reconstruction_error", tag_field="op"
):
    """Postprocess: mean squared difference between the model's input and output tensor."""

    field: Field = "score"


class Softmax(Struct, kw_only=True, frozen=True, tag="softmax", tag_field="op"):
    """Postprocess: exp-normalise the output tensor (for models that give logits)."""


class Sigmoid(Struct, kw_only=True, frozen=True, tag="sigmoid", tag_field="op"):
    """Postprocess: 1 / (1 + exp(-value)) of every value of the output tensor."""


class Dequantise(Struct, kw_only=True, frozen=True, tag="dequantise", tag_field="op"):
    """Postprocess: (value - zero) × scale of the output tensor, for a model whose own tensor does
    not say how."""

    scale: float
    zero: float = 0.0


class ClassScores(Struct, kw_only=True, frozen=True, tag="class_scores", tag_field="op"):
    """Postprocess: the best class as label, its score as `field`."""

    classes: list[Field]
    field: Field = "confidence"


class RawOutputs(Struct, kw_only=True, frozen=True, tag="raw_outputs", tag_field="op"):
    """Postprocess: name the output tensor's values one by one."""

    fields: list[Field]


class Rescale(Struct, kw_only=True, frozen=True, tag="rescale", tag_field="op"):
    """Postprocess: value × gain + offset of a named value, back into the units of people."""

    field: Field
    gain: float
    offset: float = 0.0


class Threshold(Struct, kw_only=True, frozen=True, tag="threshold", tag_field="op"):
    """Postprocess: label a row by whether `field` is above a limit."""

    field: Field = "score"
    above: float
    label: Field = "anomaly"
    otherwise: Field = "normal"


RowStep = Scale | Clip | Log | Binarise | OneHot
WindowStep = WindowFeatures | Spectrum
PreStep = Scale | Clip | Log | Binarise | OneHot | WindowFeatures | Spectrum
PostStep = (
    ReconstructionError
    | Softmax
    | Sigmoid
    | Dequantise
    | ClassScores
    | RawOutputs
    | Rescale
    | Threshold
)


def input_values(features: Sequence[str], window_rows: int, steps: Sequence[PreStep]) -> int:
    """How many values the model's input tensor has."""
    width, windowed = len(features), False
    for step in steps:
        if isinstance(step, OneHot):
            width += len(step.values) - 1
        elif isinstance(step, WindowFeatures):
            width, windowed = width * len(step.statistics), True
        elif isinstance(step, Spectrum):
            width, windowed = width * step.bands, True
    return width if windowed else width * window_rows


def find_step_problems(
    features: Sequence[str], window_rows: int, steps: Sequence[PreStep]
) -> list[str]:
    """Everything wrong in the steps before the model, as sentences with key paths."""
    columns: list[str] | None = list(features)
    problems = []
    for index, step in enumerate(steps):
        at = f"contract.preprocess[{index}]"
        width = input_values(features, 1, steps[:index])
        if isinstance(step, Scale):
            problems += _scale_problems(at, step, width)
        elif isinstance(step, Clip) and not step.low < step.high:
            problems.append(f"{at}.low: must be below high")
        elif isinstance(step, Log) and not step.floor > 0:
            problems.append(f"{at}.floor: must be above 0")
        named = _named(step)
        for name in named:
            if columns is None:
                problems.append(f"{at}: {name!r} is named after a step on windows")
            elif name not in columns:
                problems.append(f"{at}: no feature {name!r}")
        if isinstance(step, OneHot) and columns is not None and step.feature in columns:
            columns.remove(step.feature)
            columns += [""] * len(step.values)
        if isinstance(step, WindowFeatures | Spectrum):
            if columns is None:
                problems.append(f"{at}: a second step on windows")
            columns = None
            if window_rows < 2:
                problems.append(f"{at}: needs window_rows of 2 or more")
            if isinstance(step, Spectrum) and step.bands > window_rows // 2:
                problems.append(f"{at}.bands: {step.bands}, at most {window_rows // 2}")
    return problems


def _scale_problems(at: str, step: Scale, width: int) -> list[str]:
    found = []
    if not len(step.mean) == len(step.std) == width:
        found.append(
            f"{at}: {len(step.mean)} means and {len(step.std)} deviations for {width} features"
        )
    if any(not s > 0 for s in step.std):
        found.append(f"{at}.std: must be above 0")
    return found


def _named(step: PreStep) -> list[str]:
    if isinstance(step, Binarise | OneHot):
        return [step.feature]
    return step.features if isinstance(step, Log) else []
