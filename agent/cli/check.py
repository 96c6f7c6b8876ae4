"""`shoal-agent doctor` and `shoal-agent check-config`."""

from __future__ import annotations

import argparse
import json
import sys

FAILED = 1


def doctor(arguments: argparse.Namespace) -> None:
    """Say what is well and what is not; exit code 1 if anything is not."""
    import msgspec

    from agent.doctor import examine

    found = examine(arguments.config)
    ok = all(one.ok for one in found)
    if arguments.json:
        print(json.dumps({"ok": ok, "checks": msgspec.to_builtins(found)}, indent=1))
    else:
        width = max(len(one.name) for one in found)
        for one in found:
            print(f"{'ok  ' if one.ok else 'FAIL'}  {one.name:<{width}}  {one.sentence}")
            if one.fix:
                print(f"      {'':<{width}}  fix: {one.fix}")
    if not ok:
        sys.exit(FAILED)


def check_config(arguments: argparse.Namespace) -> None:
    """Print each value with its origin, and every mistake; exit code 1 if there is one."""
    from agent.config import inspect_config

    values, problems = inspect_config(arguments.config)
    if arguments.json:
        listed = [{"key": one.key, "value": one.value, "origin": one.origin} for one in values]
        print(json.dumps({"values": listed, "problems": problems}, indent=1, default=str))
    else:
        width = max((len(one.key) for one in values), default=0)
        shown = [(one, json.dumps(one.value, default=str)) for one in values]
        middle = min(max((len(text) for _, text in shown), default=0), 40)
        for one, text in shown:
            print(f"{one.key:<{width}}  {text:<{middle}}  {one.origin}")
        for problem in problems:
            print(f"mistake: {problem}", file=sys.stderr)
    if problems:
        sys.exit(FAILED)
