"""Finding secrets where none may be, in every form that they are written in."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path
from typing import Self

from local_fleet.memory import tree
from shoal.signing import FileSigner

PAUSE_SECONDS = 0.01


class Secrets:
    """Secrets by what they are, in every form that a log could show them."""

    def __init__(self) -> None:
        self._forms: dict[str, set[bytes]] = {}

    def text(self, what: str, text: str) -> None:
        """A token, password or link as it is typed."""
        assert len(text) >= 12, f"{what}: too short to look for"
        self._forms.setdefault(what, set()).add(text.encode())

    def raw(self, what: str, data: bytes) -> None:
        """Bytes: as they are, and as base64, base64 for addresses, and hexadecimal digits."""
        forms = {data, data.hex().encode(), data.hex().upper().encode()}
        forms |= {base64.b64encode(data).rstrip(b"="), base64.urlsafe_b64encode(data).rstrip(b"=")}
        self._forms.setdefault(what, set()).update(forms)

    def key(self, what: str, signer: FileSigner) -> None:
        """An Ed25519 key: its bytes, and its PEM."""
        self.raw(what, signer.private_bytes())
        self.pem(what, signer.private_pem())

    def pem(self, what: str, data: bytes) -> None:
        """Every line of the private keys in a PEM file that belongs to the key itself."""
        inside = False
        for line in data.splitlines():
            if line.startswith(b"-----"):
                inside = line.startswith(b"-----BEGIN") and b"PRIVATE KEY" in line
            elif inside and len(line) > 16:
                self._forms.setdefault(what, set()).add(line)

    def __len__(self) -> int:
        return len(self._forms)

    def within(self, data: bytes) -> list[str]:
        """Which of them stand in `data`."""
        return sorted(
            what for what, forms in self._forms.items() if any(form in data for form in forms)
        )

    def found_in(self, paths: list[Path]) -> list[str]:
        """A line for each secret in each file."""
        return [f"{path}: {what}" for path in paths for what in self.within(path.read_bytes())]


class CommandLines:
    """Remembers the command line of every process below this one, while it is watched.

    A process that lives for less than a look is missed; those that do any work live longer.
    """

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="command-lines", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(PAUSE_SECONDS):
            for pid in tree(os.getpid())[1:]:
                try:
                    self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())
                except OSError:  # it has ended
                    continue
