"""The list of parts (SBOM) of what a lock installs, as CycloneDX 1.6 JSON.

The library writes it and checks it against the standard's schema. A component has every hash that
the lock allows, one for each file of that version, and its licence where the package is installed
here and says it. The same lock, commit and environment give the same bytes.
"""

from __future__ import annotations

import importlib.metadata
import json
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release_lib.locks import Pin
from shoal.errors import InvalidInputError

MARKER = "shoal:marker"
MAX_LICENCE_CHARACTERS = 200
_NAMESPACE = uuid.UUID("8f5b1f52-6a0e-4c7e-9a55-0d9b3a3c1d6e")

Licences = Callable[[str, str], list[str]]
"""What a version of a package says of its licence, by name and version."""


def installed_licences(name: str, version: str) -> list[str]:
    """The licence of a package that is installed here in just that version."""
    try:
        found = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return []
    if found["Version"] != version:
        return []
    for field in ("License-Expression", "License"):
        text = (found.get(field) or "").strip()
        if text and "\n" not in text and len(text) <= MAX_LICENCE_CHARACTERS:
            return [text]
    kinds = [one for one in found.get_all("Classifier", []) if one.startswith("License :: ")]
    return [one.rpartition(" :: ")[2] for one in kinds]


def write_parts(
    extra: str,
    version: str,
    commit: str,
    built: datetime,
    pins: Sequence[Pin],
    licences: Licences = installed_licences,
) -> bytes:
    """The list of parts of `shoal[extra]` as `pins` install it."""
    product = Component(
        name="shoal",
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=f"shoal[{extra}]",
        purl=PackageURL("pypi", None, "shoal", version),
        properties=[Property(name="shoal:extra", value=extra)],
    )
    bom = Bom(
        components=[_component(pin, licences) for pin in pins],
        serial_number=uuid.uuid5(_NAMESPACE, f"{commit} {extra}"),
    )
    bom.metadata.component = product
    bom.metadata.timestamp = built
    bom.register_dependency(product, bom.components)
    data = JsonV1Dot6(bom).output_as_string(indent=1).encode() + b"\n"
    check_schema(f"parts of {extra}", data)
    return data


def _component(pin: Pin, licences: Licences) -> Component:
    marker = [Property(name=MARKER, value=pin.marker)] if pin.marker else []
    said = licences(pin.name, pin.version)
    factory = LicenseFactory()
    # an expression stands alone: several are names
    make = factory.make_from_string if len(said) == 1 else factory.make_with_name
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=pin.purl,
        purl=PackageURL("pypi", None, pin.name, pin.version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one) for one in sorted(pin.hashes)],
        licenses=[make(one) for one in said],
        properties=marker,
    )


def check_schema(name: str, data: bytes) -> None:
    """Refuse what is no CycloneDX 1.6."""
    try:
        problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())
    except ValueError as error:
        raise InvalidInputError(f"{name}: no JSON: {error}", code="bad-parts") from error
    if problem is not None:
        where = str(problem.data)[:200]
        raise InvalidInputError(f"{name}: no CycloneDX 1.6: {where}", code="bad-parts")


def listed_pins(name: str, data: bytes) -> list[Pin]:
    """What a list of parts says is installed, as pins of a lock."""
    check_schema(name, data)
    document: dict[str, Any] = json.loads(data)
    return [_listed(one) for one in document.get("components", [])]


def _listed(component: dict[str, Any]) -> Pin:
    properties = {one["name"]: one["value"] for one in component.get("properties", [])}
    hashes = {one["content"] for one in component.get("hashes", []) if one["alg"] == "SHA-256"}
    name, version = component["name"], component.get("version", "")
    found = Pin(name, version, properties.get(MARKER, ""), frozenset(hashes))
    if component.get("purl") != found.purl:
        raise InvalidInputError(
            f"{name} {version}: expected purl {found.purl}, got {component.get('purl')}",
            code="wrong-parts",
        )
    return found
