"""The model card: what a release is for and how well it does, as Markdown. Pure.

Made from the manifest alone, so that whoever holds a package reads the same card as the
controller's pages show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]

SECTIONS = (
    ("intended_use", "Intended use"),
    ("training_data", "Training data"),
    ("limits", "Limits"),
    ("text", "Notes"),
)
LINEAGE = (
    ("dataset", "dataset"),
    ("dataset_sha256", "its SHA-256"),
    ("rows", "rows"),
    ("commit", "commit"),
    ("parent", "made from"),
    ("source", "source"),
    ("converter", "converter"),
    ("seed", "seed"),
)
MAX_LISTED = 40


def card_markdown(manifest: Document) -> str:
    """The card of a release, from its manifest as the API gives it."""
    card, contract = manifest.get("card") or {}, manifest["contract"]
    parts = [f"# {manifest['model']} {manifest['version']}"]
    if card.get("summary"):
        parts.append(str(card["summary"]))
    facts = [(key, card.get(key)) for key in ("owner", "licence")]
    parts += [_table("", [(key, value) for key, value in facts if value])]
    if card.get("metrics"):
        rows = [(name, f"{value:g}") for name, value in card["metrics"].items()]
        parts.append(_table("Metrics", rows))
    parts += [f"## {title}\n\n{card[key]}" for key, title in SECTIONS if card.get(key)]
    parts.append(_table("Inputs", _fields(contract["features"])))
    parts.append(_table("Outputs", _fields(contract["outputs"])))
    parts.append(_table("Variants", [(one["name"], _variant(one)) for one in manifest["variants"]]))
    parts.append(_table("Lineage", _lineage(manifest.get("lineage") or {})))
    return "\n\n".join(part for part in parts if part) + "\n"


def _lineage(lineage: Document) -> list[tuple[str, str]]:
    rows = [(words, _code(lineage[key])) for key, words in LINEAGE if lineage.get(key)]
    libraries = lineage.get("libraries") or {}
    if libraries:
        rows.append(("libraries", ", ".join(f"{name} {v}" for name, v in libraries.items())))
    return rows


def _fields(fields: list[Document]) -> list[tuple[str, str]]:
    rows = [(str(one["name"]), _field(one)) for one in fields[:MAX_LISTED]]
    if len(fields) > MAX_LISTED:
        rows.append(("…", f"{len(fields) - MAX_LISTED} more"))
    return rows


def _field(field: Document) -> str:
    unit = str(field.get("unit") or "")
    low, high = field.get("low"), field.get("high")
    if low is None and high is None:
        return unit
    return f"{_bound(low)} to {_bound(high)} {unit}".rstrip()


def _bound(value: Any) -> str:
    return "any" if value is None else f"{value:g}"


def _variant(variant: Document) -> str:
    return f"{variant.get('runtime', 'tflite')}, {variant.get('precision', 'float32')}"


def _code(value: Any) -> str:
    text = str(value).replace("`", "'")
    return f"`{text}`"


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = ["| | |", "|---|---|", *[f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]]
    return "\n".join([f"## {title}\n", *lines] if title else lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
