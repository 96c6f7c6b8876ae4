"""Lineage: which release was made from which, and from what data; a graph for pages and audits.

A manifest's `lineage.parent` names another release, as VERSION or MODEL@VERSION; what is not
published here is a node all the same, `known` false. Data sets are nodes by their digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from controller.errors import NotFoundError
from controller.schema import releases

Document = dict[str, Any]

MAX_RELEASES = 2000


def lineage_of(connection: Connection, model: str) -> Document:
    """The graph of a model's releases, and of those of other models they were made from."""
    found = _manifests(connection, model)
    if not found:
        raise NotFoundError(f"model {model[:80]!r}: no release is published")
    seen = {model}
    while missing := {name for name in _parents(found) if name not in seen}:
        for name in sorted(missing):
            found += _manifests(connection, name)
        seen |= missing
    return graph(found)


def graph(manifests: Iterable[Mapping[str, Any]]) -> Document:
    """Nodes and edges of manifests. Pure.

    Nodes are releases (`MODEL@VERSION`) and data sets (`sha256:…`); an edge leads from what
    something was made from to what was made: `kind` is parent or dataset.
    """
    nodes: dict[str, Document] = {}
    edges: list[Document] = []
    listed = list(manifests)
    for manifest in listed:
        lineage = manifest.get("lineage") or {}
        name = f"{manifest['model']}@{manifest['version']}"
        nodes[name] = {
            "id": name,
            "kind": "release",
            "known": True,
            "commit": lineage.get("commit", ""),
            "source": lineage.get("source", ""),
        }
    for manifest in listed:
        lineage = manifest.get("lineage") or {}
        name = f"{manifest['model']}@{manifest['version']}"
        if parent := parent_of(manifest):
            unknown = {"id": parent, "kind": "release", "known": False, "commit": "", "source": ""}
            nodes.setdefault(parent, unknown)
            edges.append({"from": parent, "to": name, "kind": "parent"})
        if digest := lineage.get("dataset_sha256"):
            data = f"sha256:{digest}"
            label = lineage.get("dataset", "")
            nodes.setdefault(data, {"id": data, "kind": "dataset", "known": True, "name": label})
            edges.append({"from": data, "to": name, "kind": "dataset"})
    return {"nodes": list(nodes.values()), "edges": edges}


def parent_of(manifest: Mapping[str, Any]) -> str:
    """The release it was made from, as MODEL@VERSION; "" where it says none.

    >>> parent_of({"model": "pump", "lineage": {"parent": "1.0"}})
    'pump@1.0'
    """
    parent = str((manifest.get("lineage") or {}).get("parent") or "").strip()
    return parent if "@" in parent or not parent else f"{manifest['model']}@{parent}"


def _parents(manifests: list[Mapping[str, Any]]) -> set[str]:
    return {parent.partition("@")[0] for one in manifests if (parent := parent_of(one))}


def _manifests(connection: Connection, model: str) -> list[Mapping[str, Any]]:
    query = select(releases.c.manifest).where(releases.c.model == model)
    newest = query.order_by(releases.c.sequence.desc()).limit(MAX_RELEASES)
    return list(connection.scalars(newest))[::-1]
