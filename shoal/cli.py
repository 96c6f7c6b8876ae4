"""The operators' command `shoal`."""


def main() -> None:
    """Run the command."""
