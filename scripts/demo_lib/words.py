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
