"""A real `shoal-agent` on a state folder that takes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.contract


@pytest.fixture
def read_only(state_dir, tmp_path):
    """The state folder after enrolment, read-only: another mount for root, whom no mode stops."""
    if os.geteuid() != 0:
        state_dir.chmod(0o500)
        yield state_dir
        state_dir.chmod(0o700)
        return
    folder = tmp_path / "mounted"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    shutil.copytree(state_dir, folder, dirs_exist_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_an_agent_on_a_read_only_state_folder_says_so_in_one_sentence_and_ends(read_only, tmp_path):
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[device]\nid = "gw-1"\nsite = "lab"\nstate_dir = "{read_only}"\n'
        '[controller]\nurl = "http://127.0.0.1:1"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "run", "--config", str(config)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        f"shoal-agent: {read_only}: the state folder is read-only; mount it writable, or let the "
        "agent's user write there\n"
    )
