"""The device service, command `shoal-agent`."""
