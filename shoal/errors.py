"""The one base of all errors that people read.

A `ShoalError` carries a stable `code` (it crosses the wire and is tested for), and a sentence
that says what failed, on which thing, what was expected and what was found. Each program
derives its own errors from it, grouped by whose fault they are.
"""

from __future__ import annotations


class ShoalError(Exception):
    """Something failed in a way a person can act on."""

    code = "error"

    def __init__(self, sentence: str, *, code: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        if code is not None:
            self.code = code


class InvalidInputError(ShoalError):
    """A file, message, option or setting that does not hold what it must."""

    code = "invalid-input"


class UntrustedError(ShoalError):
    """A signature, digest or identity that does not hold; nothing of it may be used."""

    code = "untrusted"
