"""Measure one group of figures, or all: `scripts/bench GROUP [--json] [--quick]`.

Each figure is the median of at least five runs after a warm-up, with the spread and the machine.
`--quick` tries the benchmark itself; its figures are not for quoting. `--markdown FILE…` measures
nothing: it prints the tables of the documents from what `--json` has written before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figure import CannotMeasureError, Figure, Options
from benchmarks.report import line, markdown

GROUPS = ("agent", "ingest", "statistics", "drift", "gates", "rollouts", "web", "runtimes", "trust")


def main() -> int:
    """Measure and print."""
    arguments = _parser().parse_args()
    if arguments.markdown:
        print(markdown([_read(path) for path in arguments.markdown]))
        return 0
    # as installed on a device: from bytecode, not compiling at every start
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    options = Options(quick=arguments.quick)
    groups = GROUPS if arguments.group == "all" else (arguments.group,)
    figures: list[Figure] = []
    asked = unmeasured = 0
    for name, measure in _measurements(groups, arguments.only):
        asked += 1
        try:
            figures.append(measure(options))
        except CannotMeasureError as error:
            unmeasured += 1
            print(f"{name:32} not measured: {error}", file=sys.stderr, flush=True)
        else:
            output = sys.stderr if arguments.json else sys.stdout
            print(line(figures[-1]), file=output, flush=True)
    if arguments.json:
        print(json.dumps([figure.document() for figure in figures], indent=2, ensure_ascii=False))
    if not asked:
        print(f"bench: no figure named {arguments.only} in {', '.join(groups)}", file=sys.stderr)
    return 0 if asked > unmeasured else 1


def _measurements(
    groups: tuple[str, ...], only: list[str]
) -> Iterator[tuple[str, Callable[[Options], Figure]]]:
    for group in groups:
        module = importlib.import_module(f"benchmarks.{group}")
        for name, measure in module.MEASUREMENTS.items():
            if not only or name in only:
                print(f"… {group}: {name}", file=sys.stderr, flush=True)
                yield name, measure


def _read(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("group", choices=(*GROUPS, "all"), nargs="?", default="all")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--quick", action="store_true", help="try the benchmark itself")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="only this figure; repeatable"
    )
    parser.add_argument(
        "--markdown",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="print tables from such lists, one a machine",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
