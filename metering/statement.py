"""Statements: what a person earned, by Datanet and adapter, accrued and paid (docs/formats/statement.md)."""

from __future__ import annotations

from typing import Any

from metering.ledger import Ledger


def build_statement(ledger: Ledger, account: str, period: str | None = None) -> dict[str, Any]:
    """Earnings of `account` in every role, by terms; `accrued` is the open window by the same formula as `paid`."""
    raise NotImplementedError


def render_statement(statement: dict[str, Any]) -> str:
    """The same as readable text."""
    raise NotImplementedError
