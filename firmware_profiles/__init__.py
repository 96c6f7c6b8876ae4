"""Hardware profiles, one TOML each; data, read through `shoal.profiles`."""
