"""Kills for memory, told by a control group's own count; the folder stands for cgroupfs."""

from __future__ import annotations

import pytest

from agent.workers.oom import OomCounter, explain_kill


@pytest.fixture
def group(tmp_path):
    """A control group's folder, and the file that names it."""
    (tmp_path / "own").write_text("4:memory:/old\n0::/system.slice/shoal-agent.service\n")
    folder = tmp_path / "system.slice" / "shoal-agent.service"
    folder.mkdir(parents=True)
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n")
    return folder


def test_only_kills_since_the_last_look_are_told(group, tmp_path):
    counter = OomCounter(tmp_path, tmp_path / "own")
    assert counter.take() == 0
    (group / "memory.events").write_text("max 9\noom 3\noom_kill 3\noom_group_kill 0\n")
    assert (counter.take(), counter.take()) == (2, 0)


def test_a_machine_without_these_groups_claims_nothing(group, tmp_path):
    assert OomCounter(tmp_path / "nowhere", tmp_path / "own").take() == 0
    assert OomCounter(tmp_path, tmp_path / "absent").take() == 0
    counter = OomCounter(tmp_path, tmp_path / "own")
    (group / "memory.events").write_text("oom_kill many\n")
    assert counter.take() == 0


def test_only_a_sigkill_that_the_kernel_counted_is_memorys():
    assert explain_kill("worker-crashed", "died of signal 9", -9, 1)[0] == "worker-memory"
    assert explain_kill("worker-crashed", "died of signal 9", -9, 0)[0] == "worker-crashed"
    assert explain_kill("worker-crashed", "died of signal 11", -11, 1)[0] == "worker-crashed"
