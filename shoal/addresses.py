"""Addresses as logs may show them.

>>> shown("https://me:word@plant.example:8443/hook?token=abc#d")
'https://plant.example:8443/hook'
"""

from __future__ import annotations

from urllib.parse import urlsplit


def shown(url: str) -> str:
    """An address without its login, query and fragment, which often are secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else "an address without a host"


def tells_secrets(url: str) -> bool:
    """Whether an address holds a part that `shown` leaves out."""
    return any(one in url for one in "@?#")
