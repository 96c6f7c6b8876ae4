"""`scripts/audit`: look every locked package up among known vulnerabilities, by pip-audit.

    scripts/audit [--url URL] [LOCK…]      all of locks/ unless some are named

Names and versions are sent to the database (OSV's, or another that speaks its query), nothing else.
Exit codes: 0 nothing known, 1 something is known, 2 wrong command line, 3 the database could not be
asked, so nothing is known either way.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from release_lib.locks import read_lock

from shoal.errors import ShoalError

ROOT = Path(__file__).resolve().parent.parent
PIP_AUDIT = ROOT / ".venv-audit" / "bin" / "pip-audit"
DATABASE = "https://api.osv.dev/v1/query"
ANSWER_SECONDS = 15
TOTAL_SECONDS = 900
FOUND, UNREACHABLE = 1, 3


class NotAskedError(ShoalError):
    """The database gave no answer."""

    code = "database-unreachable"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="scripts/audit", description=__doc__.splitlines()[0])
    parser.add_argument("locks", nargs="*", type=Path, metavar="LOCK")
    parser.add_argument("--url", default=DATABASE, help=f"of the database; default {DATABASE}")
    arguments = parser.parse_args()
    locks = arguments.locks or sorted((ROOT / "locks").glob("*.lock"))
    try:
        found = audit(locks, arguments.url)
    except NotAskedError as error:
        print(f"audit: {error.sentence}", file=sys.stderr)
        sys.exit(UNREACHABLE)
    except (ShoalError, OSError) as error:
        print(f"audit: {error}", file=sys.stderr)
        sys.exit(2)
    for line in found:
        print(line)
    if found:
        sys.exit(FOUND)


def audit(locks: Iterable[Path], url: str) -> list[str]:
    """A line for each known vulnerability of what the locks pin."""
    wanted: dict[str, dict[str, list[str]]] = {}
    for path in locks:
        for pin in read_lock(path.read_text(encoding="utf-8"), path.name):
            wanted.setdefault(pin.name, {}).setdefault(pin.version, []).append(path.name)
    lines = []
    for batch in _batches(wanted):
        for package in _ask(batch, url):
            name, version = package["name"], package["version"]
            where = ", ".join(wanted[name][version])
            lines += [
                f"{name} {version} ({where}): {one['id']}, fixed in "
                f"{', '.join(one['fix_versions']) or 'no version yet'}"
                for one in package.get("vulns", [])
            ]
    total = sum(len(versions) for versions in wanted.values())
    print(f"audit: {total} packages asked about, {len(lines)} vulnerabilities", file=sys.stderr)
    return sorted(lines)


def _batches(wanted: dict[str, dict[str, list[str]]]) -> Iterator[list[str]]:
    """Requirements, no name twice in a batch: locks pin some names in several versions."""
    pins = [[f"{name}=={one}" for one in versions] for name, versions in sorted(wanted.items())]
    for batch in zip_longest(*pins):
        yield [one for one in batch if one is not None]


def _ask(requirements: list[str], url: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        asked, report = Path(folder) / "asked.txt", Path(folder) / "report.json"
        asked.write_text("\n".join(requirements) + "\n", encoding="ascii")
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        service = ["--vulnerability-service", "osv", "--osv-url", url]
        command = [str(PIP_AUDIT), *options, *service, "--timeout", str(ANSWER_SECONDS)]
        try:
            done = subprocess.run(
                [*command, "--cache-dir", folder, "--requirement", asked, "--output", report],
                capture_output=True,
                text=True,
                check=False,
                timeout=TOTAL_SECONDS,
            )
            # 1 means both "found some" and "could not ask": only the report tells them apart
            answer: dict[str, Any] = json.loads(report.read_bytes())
        except subprocess.TimeoutExpired as error:
            raise _not_asked(url, f"no end after {TOTAL_SECONDS} s") from error
        except (OSError, ValueError) as error:
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise _not_asked(url, last[0][:300]) from error
    answered = answer["dependencies"]
    skipped = [one["name"] for one in answered if "skip_reason" in one]
    if skipped or len(answered) != len(requirements):
        raise _not_asked(url, f"{len(answered)} of {len(requirements)} answered, {skipped} skipped")
    return list(answered)


def _not_asked(url: str, why: str) -> NotAskedError:
    return NotAskedError(
        f"the vulnerability database at {url} could not be asked, so nothing is known: {why}"
    )


if __name__ == "__main__":
    main()
