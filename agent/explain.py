"""What `shoal-agent explain` says of a package: which variant a device would run, and why not the
others. It judges as the updater does before staging, and reads the model files too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shoal.compatibility import Facts, Gap, explain_variants
from shoal.errors import InvalidInputError
from shoal.package import Package, read_package
from shoal.protocol.manifest import Variant
from shoal.tflite.reader import read_model
from shoal.tflite.requirements import file_gaps


def explain_package(path: Path, facts: Facts) -> dict[str, Any]:
    """The document of `explain --json`."""
    package = read_package(path)
    manifest = package.manifest
    variants: list[dict[str, Any]] = []
    chosen: str | None = None
    for fit in explain_variants(manifest, facts):
        gaps = fit.gaps or _file_gaps(package, fit.variant, facts)
        if chosen is None and not gaps:
            chosen = fit.variant.name
        variants.append(
            {
                "variant": fit.variant.name,
                "file": fit.variant.file,
                "runtime": fit.variant.runtime,
                "precision": fit.variant.precision,
                "priority": fit.variant.priority,
                "fits": not gaps,
                "chosen": chosen == fit.variant.name,
                "gaps": [_gap(one) for one in gaps],
            }
        )
    return {
        "package": f"{manifest.model} {manifest.version}",
        "fits": chosen is not None,
        "variant": chosen,
        "variants": variants,
        "facts": dict(facts),
    }


def explain_lines(found: dict[str, Any], device: str) -> str:
    """The document as text."""
    if found["fits"]:
        lines = [f"{found['package']} fits {device} with variant {found['variant']}"]
    else:
        lines = [f"{found['package']} does not fit {device}"]
    for one in found["variants"]:
        state = "chosen" if one["chosen"] else "fits too" if one["fits"] else "does not fit"
        about = f"{one['runtime']} {one['precision']}, priority {one['priority']}"
        lines.append(f"  {one['variant']} ({about}): {state}")
        lines += [
            f"    {gap['field']}: needs {gap['need']}, has {gap['have'] or 'nothing'} "
            f"({gap['fix']})"
            for gap in one["gaps"]
        ]
    return "\n".join(lines)


def _file_gaps(package: Package, variant: Variant, facts: Facts) -> list[Gap]:
    """What the file itself says, where the manifest does not."""
    if variant.runtime != "tflite":
        return []
    try:
        model = read_model(package.files[variant.file], variant.file)
    except InvalidInputError as error:
        return [Gap("file", "a sound TFLite file", error.sentence, "convert the model again")]
    return file_gaps(model, facts)


def _gap(gap: Gap) -> dict[str, str]:
    return {"field": gap.field, "need": gap.need, "have": gap.have, "fix": gap.fix}
