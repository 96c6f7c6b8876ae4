"""Which operator versions a TFLite runtime has, by asking it.

A file that names one operator and has no step loads exactly where the runtime knows that version
of the operator, and nothing is run. Versions of an operator begin at 1 and have no holes.
"""

from __future__ import annotations

from collections.abc import Callable

from shoal.tflite.operators import CUSTOM, NAMES

HIGHEST_PROBED = 30
_TEMPLATE = bytes.fromhex(
    "1800000054464c3300000e00140010000c000800000004000e0000006c0000000c0000004000000003000000"
    "01000000100000000c00140010000c00080004000c0000001000000010000000100000001000000000000000"
    "00000000000000000000000001000000100000000c0010000f000000040008000c0000000100000000000000"
    "0000000001000000080000000400040004000000"
)
_VERSION_AT, _CODE_AT, _OLD_CODE_AT = 124, 128, 135


def probe_file(code: int, version: int) -> bytes:
    """A `.tflite` of one empty graph that names one version of one operator."""
    data = bytearray(_TEMPLATE)
    data[_VERSION_AT], data[_CODE_AT], data[_OLD_CODE_AT] = version, code, min(code, 127)
    return bytes(data)


def probe_operators(takes: Callable[[int, int], bool], highest: int) -> dict[str, int]:
    """Operator → highest version that `takes(code, version)`; those without any are left out."""
    found = {}
    for code, name in enumerate(NAMES):
        if name == CUSTOM:
            continue  # means nothing without a name of its own
        version = 0
        while version < highest and takes(code, version + 1):
            version += 1
        if version:
            found[name] = version
    return found
