"""`python -m agent.cli`, the same as `shoal-agent`."""

from agent.cli import main

main()
