"""Invoices: what a tenant used in a period, by model and token kind, from settled transfers (docs/formats/invoice.md)."""

from __future__ import annotations

from typing import Any

from metering.ledger import Ledger


def build_invoice(ledger: Ledger, tenant: str, period: str) -> dict[str, Any]:
    """The invoice of `YYYY-MM` or `YYYY-MM-DD` (else PeriodInvalid); its status is `draft` while the period lasts."""
    raise NotImplementedError


def render_invoice(invoice: dict[str, Any]) -> str:
    """The same as readable text."""
    raise NotImplementedError
