"""How the registry looks in a terminal. Pure."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.tree import Tree

from shoal.cli.render import clock, plain_table

Document = dict[str, Any]


def model_table(models: list[Document], aliases: list[Document]) -> Table:
    """Models, their newest release, and where aliases point."""
    table = plain_table("model", "newest", "state", "devices", "aliases")
    for model in models:
        newest = model["releases"][0]
        names = [
            f"{one['alias']} → {one['version']}"
            for one in aliases
            if one["model"] == model["model"]
        ]
        devices = sum(one["devices"] for one in model["releases"])
        table.add_row(
            model["model"], newest["version"], newest["state"], str(devices), ", ".join(names)
        )
    return table


def alias_table(aliases: list[Document]) -> Table:
    """Where aliases point, since when and by whom."""
    table = plain_table("alias", "points at", "since", "by")
    for one in aliases:
        name = f"{one['model']}@{one['alias']}"
        table.add_row(name, one["version"], clock(one["set_ms"]), one["set_by"])
    return table


def change_table(changes: list[Document]) -> Table:
    """Moves, the newest first."""
    table = plain_table(
        "change", "alias", "from", "to", "state", "asked", "by", "why", "decided by"
    )
    for one in changes:
        agreed = [
            f"{who['person']} {'agreed' if who['approved'] else 'refused'}"
            + (f": {who['reason']}" if who["reason"] else "")
            for who in one["decisions"]
        ]
        table.add_row(
            str(one["id"]),
            one["alias"],
            one["from_version"] or "–",
            one["to_version"] or "–",
            one["state"],
            clock(one["asked_ms"]),
            one["asked_by"],
            one["reason"],
            "; ".join(agreed),
        )
    return table


def change_line(change: Document) -> str:
    """One move in a line."""
    name = f"{change['model']}@{change['alias']}"
    target = change["to_version"] or "nothing"
    if change["state"] == "made":
        return f"{name} points at {target} (change {change['id']})"
    if change["state"] == "waiting":
        missing = change["approvals"] - len(change["decisions"])
        people = "another person" if missing == 1 else f"{missing} other people"
        return f"{name} to {target}: change {change['id']} waits for approval by {people}"
    return f"{name} to {target}: change {change['id']} is {change['state']}"


def lineage_tree(document: Document) -> Tree:
    """Releases below what they were made from."""
    nodes = {one["id"]: one for one in document["nodes"]}
    made_from = {(edge["to"], edge["kind"]): edge["from"] for edge in document["edges"]}
    children: dict[str, list[str]] = {}
    roots = []
    for name, node in nodes.items():
        if node["kind"] != "release":
            continue
        parent = made_from.get((name, "parent"))
        if parent is None or parent == name:
            roots.append(name)
        else:
            children.setdefault(parent, []).append(name)
    tree = Tree("lineage", hide_root=True)
    seen: set[str] = set()
    for root in roots or list(nodes)[:1]:
        _grow(tree, root, nodes, made_from, children, seen)
    return tree


def _grow(
    tree: Tree,
    name: str,
    nodes: dict[str, Document],
    made_from: dict[tuple[str, str], str],
    children: dict[str, list[str]],
    seen: set[str],
) -> None:
    if name in seen:  # a manifest may name what came after it
        return
    seen.add(name)
    words = name if nodes[name]["known"] else f"{name} (not published here)"
    if data := made_from.get((name, "dataset")):
        digest = data.partition(":")[2]
        words += f"  data {nodes[data].get('name') or ''} {digest[:12]}…"
    branch = tree.add(words)
    for child in children.get(name, []):
        _grow(branch, child, nodes, made_from, children, seen)
