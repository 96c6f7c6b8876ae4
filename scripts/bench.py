"""Measure one group of figures, or all: `scripts/bench GROUP [--json] [--quick]`.

Each figure is the median of at least five runs after a warm-up, with the spread and the machine.
`--quick` tries the benchmark itself; its figures are not for quoting.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator

from benchmarks.figure import Figure, Options

GROUPS = ("agent", "ingest", "statistics", "web")


def main() -> int:
    """Measure and print."""
    arguments = _parser().parse_args()
    options = Options(quick=arguments.quick)
    groups = GROUPS if arguments.group == "all" else (arguments.group,)
    figures = []
    for figure in _measure(groups, options, arguments.only):
        figures.append(figure)
        print(_line(figure), file=sys.stderr if arguments.json else sys.stdout, flush=True)
    if arguments.json:
        print(json.dumps([figure.document() for figure in figures], indent=2, ensure_ascii=False))
    if not figures:
        print(f"bench: no figure named {arguments.only} in {', '.join(groups)}", file=sys.stderr)
        return 1
    return 0


def _measure(groups: tuple[str, ...], options: Options, only: list[str]) -> Iterator[Figure]:
    for group in groups:
        module = importlib.import_module(f"benchmarks.{group}")
        for name, measure in module.MEASUREMENTS.items():
            if not only or name in only:
                print(f"… {group}: {name}", file=sys.stderr, flush=True)
                yield measure(options)


def _line(figure: Figure) -> str:
    low, high = figure.spread
    text = f"{figure.name:32} {figure.value:>10g} {figure.unit:12} ({low:g} – {high:g})"
    if figure.baseline is not None:
        other = figure.baseline
        text += f"  of {other['what']}: {other['value']:g} {other['unit']}"
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("group", choices=(*GROUPS, "all"))
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--quick", action="store_true", help="try the benchmark itself")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="only this figure; repeatable"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
