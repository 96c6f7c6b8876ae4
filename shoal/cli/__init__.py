"""The operators' and authors' command `shoal`.

Nouns are sub-commands, verbs are theirs: `shoal rollout pause r-12`. Every command imports what
it needs when it runs, so that `shoal --help` stays quick. A failure is one line on standard
error and an exit code of `shoal.cli.exits`, never a traceback.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command."""
    from shoal.cli.app import app
    from shoal.cli.exits import exit_code
    from shoal.errors import ShoalError

    try:
        app()
    except ShoalError as error:
        print(f"shoal: {error.sentence}", file=sys.stderr)
        sys.exit(exit_code(error))
