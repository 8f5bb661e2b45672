"""How a law says that it is broken."""

from __future__ import annotations


class Broken(AssertionError):
    """An invariant does not hold: its name first."""

    def __init__(self, name: str, detail: object) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


def require(held: bool, name: str, detail: object) -> None:
    if not held:
        raise Broken(name, detail)
