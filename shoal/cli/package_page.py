"""A package as text for people. Pure.

A package may come from anybody, so what it says is shown with control characters replaced and
cut to a length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from shoal.errors import InvalidInputError
from shoal.package import Package
from shoal.protocol.manifest import Contract, Feature, OutputField, Variant
from shoal.tflite.reader import read_model

MAX_TEXT = 200
MAX_NAMES = 40
LABEL_WIDTH = 12

Line = tuple[str, str]


def page(lines: Iterable[Line], width: int = LABEL_WIDTH) -> str:
    """Lines of a label and its text."""
    return "\n".join(f"{label:<{width}}{clean(text)}".rstrip() for label, text in lines)


def clean(text: str) -> str:
    """Printable characters only, so that nothing can move the cursor or colour the screen."""
    return "".join(one if one.isprintable() else "�" for one in text)


def file_lines(package: Package) -> list[Line]:
    """What each variant's file needs, by the file itself."""
    lines: list[Line] = []
    for variant in package.manifest.variants:
        if variant.runtime != "tflite":
            continue
        try:
            model = read_model(package.files[variant.file], variant.file)
        except InvalidInputError as error:
            lines.append(("unsound", error.sentence))
            continue
        operators = ", ".join(f"{name} {version}" for name, version in model.operators.items())
        lines.append(
            ("needs", f"{variant.file}: {model.memory_mb} MiB of memory, operators {operators}")
        )
    return lines


def package_lines(package: Package, signature: str) -> list[Line]:
    """What stands in a package; `signature` says what is known of its signature."""
    manifest = package.manifest
    name = f"{manifest.model} {manifest.version}"
    signed = [("signed by", one.keyid) for one in package.envelope.signatures]
    files = [
        ("file", f"{one.name}, {one.length:,} bytes, sha256 {one.sha256}") for one in manifest.files
    ]
    card = msgspec.to_builtins(manifest.card)
    return [
        ("release", f"{name}, sequence {manifest.sequence}, made {_cut(manifest.created)}"),
        ("manifest", f"sha256 {package.manifest_sha256}"),
        *(signed or [("signed by", "nobody")]),
        ("signature", signature),
        *[("variant", _variant(one)) for one in manifest.variants],
        *file_lines(package),
        *_contract(manifest.contract),
        ("golden", _keys(msgspec.to_builtins(manifest.golden)) if manifest.golden else "none"),
        ("baseline", manifest.baseline or "none"),
        ("probation", _keys(msgspec.to_builtins(manifest.probation))),
        ("gates", _keys(msgspec.to_builtins(manifest.gates))),
        *files,
        *[(key.replace("_", " "), _cut(_value(value))) for key, value in card.items() if value],
        ("lineage", _keys(msgspec.to_builtins(manifest.lineage)) or "none"),
    ]


def _contract(contract: Contract) -> list[Line]:
    rows, stride = contract.window_rows, contract.stride_rows
    return [
        *_some("feature", contract.features),
        ("window", f"{rows} rows, a new one every {stride}"),
        *[("before", _keys(msgspec.to_builtins(step))) for step in contract.preprocess],
        *[("after", _keys(msgspec.to_builtins(step))) for step in contract.postprocess],
        *_some("output", contract.outputs),
    ]


def _some(label: str, fields: list[Feature] | list[OutputField]) -> list[Line]:
    shown = [(label, _field(one)) for one in fields[:MAX_NAMES]]
    more = len(fields) - MAX_NAMES
    return [*shown, (label, f"and {more} more")] if more > 0 else shown


def _field(field: Feature | OutputField) -> str:
    text = f"{field.name} [{field.unit}]" if field.unit else field.name
    if field.low is not None or field.high is not None:
        low = "-∞" if field.low is None else f"{field.low:g}"
        high = "∞" if field.high is None else f"{field.high:g}"
        text += f" {low} … {high}"
    if isinstance(field, Feature) and field.missing == "fill":
        text += f", {field.fill:g} where missing"
    return _cut(text)


def _variant(variant: Variant) -> str:
    requires = msgspec.to_builtins(variant.requires)
    needs = _keys({key: value for key, value in requires.items() if value})
    return _cut(
        f"{variant.name}: {variant.file}, {variant.runtime} {variant.precision}, "
        f"priority {variant.priority}" + (f", requires {needs}" if needs else "")
    )


def _keys(table: dict[str, Any]) -> str:
    """`key=value`, without what is empty."""
    empty: tuple[Any, ...] = ("", [], {}, None)
    shown = [f"{key}={_value(value)}" for key, value in table.items() if value not in empty]
    return _cut(" ".join(shown))


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ",".join(_value(one) for one in value)
    if isinstance(value, dict):
        return ",".join(f"{key}:{_value(one)}" for key, one in value.items())
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
