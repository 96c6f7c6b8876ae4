"""Write the reference pages that are made from code: `scripts/reference [--check]`.

With `--check` nothing is written; the exit code is 1 when a page differs from what it should be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from reference_lib.metrics import metrics_page

ROOT = Path(__file__).resolve().parent.parent
PAGES: dict[str, Callable[[], str]] = {"docs/reference/metrics.md": metrics_page}
"""Path below the repository → what makes its text."""


def main() -> int:
    """Write or compare."""
    differing = [name for name, make in PAGES.items() if _differs(ROOT / name, make())]
    if "--check" in sys.argv[1:]:
        for name in differing:
            print(f"reference: {name} is not as the code says: scripts/reference", file=sys.stderr)
        return 1 if differing else 0
    for name in differing:
        (ROOT / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"reference: {name}")
    return 0


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    sys.exit(main())
