"""Group agent: what the device service costs, and how fast it recovers."""

from __future__ import annotations

from benchmarks.install import install_size, install_size_slim, install_size_small
from benchmarks.pipelines import (
    added_latency_p99,
    loop_lag_p99,
    pipeline_ratio_autoencoder,
    pipeline_ratio_resnet,
)
from benchmarks.resident import (
    agent_pss,
    model_pss,
    model_pss_c,
    updater_peak,
    worker_pss,
)
from benchmarks.swaps import swap_gap_max, swap_lost
from benchmarks.workers import crash_recovery, hang_recovery_over_deadline, worker_ready

MEASUREMENTS = {
    "agent_pss": agent_pss,
    "model_pss": model_pss,
    "worker_pss": worker_pss,
    "model_pss_c": model_pss_c,
    "updater_peak": updater_peak,
    "install_size": install_size,
    "install_size_slim": install_size_slim,
    "install_size_small": install_size_small,
    "worker_ready": worker_ready,
    "pipeline_ratio_resnet": pipeline_ratio_resnet,
    "pipeline_ratio_autoencoder": pipeline_ratio_autoencoder,
    "added_latency_p99": added_latency_p99,
    "crash_recovery": crash_recovery,
    "hang_recovery_over_deadline": hang_recovery_over_deadline,
    "swap_gap_max": swap_gap_max,
    "swap_lost": swap_lost,
    "loop_lag_p99": loop_lag_p99,
}
