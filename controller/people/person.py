"""Who sends a request: a user, the holder of a token, or nobody known."""

from __future__ import annotations

from dataclasses import dataclass

from controller.people.roles import at_least

ANONYMOUS = "anonymous"
RESERVED = frozenset({ANONYMOUS, "shoal-controller"})
"""Names that stand in the audit log for nobody's account."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks."""

    name: str
    """As it stands in the audit log."""
    role: str
    principal: str = ""
    """`user NAME` or `token ID`; "" for anonymous people."""
    owner: str = ""
    """The user behind a token; a user's own name; "" where there is none."""
    session: str = ""
    """The secret of the browser's session; "" without one."""

    def may(self, role: str) -> bool:
        """Whether this person has at least `role`."""
        return at_least(self.role, role)

    @property
    def is_user(self) -> bool:
        """Whether this is somebody with a password."""
        return self.principal.startswith("user ")
