"""Group web: what people at a terminal or a browser wait for."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figure import Figure, Options, figure, repeat
from benchmarks.scraping import metrics_scrape_100k

HELP_CALLS = 5


def cli_help(options: Options) -> Figure:
    """`shoal --help`, the whole process."""
    command = [str(Path(sys.executable).with_name("shoal")), "--help"]

    def run() -> float:
        started = time.perf_counter()
        for _ in range(HELP_CALLS):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=30)
        return (time.perf_counter() - started) * 1000 / HELP_CALLS

    return figure("cli_help", "ms", repeat(run, options))


MEASUREMENTS = {"cli_help": cli_help, "metrics_scrape_100k": metrics_scrape_100k}
