"""Documents in words, for people who watch the demo. Pure."""

from __future__ import annotations

from typing import Any

from shoal.protocol.manifest import Manifest

Document = dict[str, Any]


def release_key(manifest: Manifest) -> Document:
    """What names a release in the API."""
    return {
        "model": manifest.model,
        "version": manifest.version,
        "sequence": manifest.sequence,
    }


def release_words(manifest: Manifest) -> str:
    """One line of a release's model card."""
    metrics = ", ".join(f"{name} {value:g}" for name, value in manifest.card.metrics.items())
    quality = f" ({metrics})" if metrics else ""
    return f"{manifest.model} {manifest.version}: {manifest.card.summary}{quality}"


def drift_words(drift: Document) -> str:
    """The fields that moved most, in their own units."""
    fields = [one for one in drift["features"] if one["severity"] in ("moderate", "strong")]
    if not fields:
        return f"{drift['rows']:,} rows, no drift"
    words = [
        f"{one['name']} {one['severity']} (PSI {one['psi']:.2f}, mean {one['mean']:.4g} "
        f"{one['unit']}, in training {one['baseline_mean']:.4g})"
        for one in fields[:3]
    ]
    return f"{drift['rows']:,} rows, drift in {len(fields)} features: " + "; ".join(words)
