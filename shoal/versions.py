"""Comparing version numbers: the numbers in them, in order.

>>> version_key("2.14.0") > version_key("2.9")
True
>>> version_key("glibc 2.36")
(2, 36)
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[0-9]{1,9}")


def version_key(text: str) -> tuple[int, ...]:
    """Up to four numbers of a version, without zeros at the end."""
    found = [int(number) for number in _NUMBER.findall(text)[:4]]
    while found and not found[-1]:
        found.pop()
    return tuple(found)
