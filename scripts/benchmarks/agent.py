"""Group agent: what the device service costs, and how fast it recovers."""

from __future__ import annotations

from benchmarks.install import install_size
from benchmarks.workers import crash_recovery, hang_recovery_over_deadline, worker_ready

MEASUREMENTS = {
    "worker_ready": worker_ready,
    "crash_recovery": crash_recovery,
    "hang_recovery_over_deadline": hang_recovery_over_deadline,
    "install_size": install_size,
}
