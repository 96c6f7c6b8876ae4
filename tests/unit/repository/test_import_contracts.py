"""The import contracts of pyproject.toml notice what they are there to notice."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = (
    "shoal/__init__.py",
    "shoal/protocol/__init__.py",
    "shoal/client.py",
    "shoal/cli/__init__.py",
    "agent/__init__.py",
    "agent/app.py",
    "agent/link.py",
    "agent/lean/__init__.py",
    "agent/workers/__init__.py",
    "agent/workers/order.py",
    "controller/__init__.py",
)
RUN = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture
def lint(repository_root, tmp_path):
    """Checks a small copy of the layout in which one module has one import more."""
    for name in MODULES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "agent" / "app.py").write_text("import agent.link\n")
    (tmp_path / "pyproject.toml").write_text((repository_root / "pyproject.toml").read_text())

    def run(module: str, line: str) -> subprocess.CompletedProcess[str]:
        with (tmp_path / module).open("a") as file:
            file.write(line + "\n")
        return subprocess.run(
            [sys.executable, "-c", RUN, "--no-cache", "--no-logo"],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_accepts_the_plain_layout(lint):
    result = lint("agent/app.py", "import shoal.protocol")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("shoal/client.py", "import agent", "shoal knows neither the agent nor the controller"),
        ("agent/link.py", "import controller", "agent and controller do not know each other"),
        ("agent/link.py", "import shoal.client", "the agent uses neither the client nor"),
        ("agent/link.py", "import numpy", "the resident agent imports nothing heavy"),
        ("agent/app.py", "from cryptography import x509", "the resident agent imports nothing"),
        ("agent/lean/__init__.py", "import numpy", "workers on the C library do without numpy"),
        ("shoal/protocol/__init__.py", "import pydantic", "the wire contract depends on nothing"),
    ],
)
def test_notices_a_forbidden_import(lint, module, line, contract):
    result = lint(module, line)
    assert result.returncode == 1
    broken = [text for text in result.stdout.splitlines() if text.endswith("BROKEN")]
    assert any(text.startswith(contract) for text in broken), result.stdout
