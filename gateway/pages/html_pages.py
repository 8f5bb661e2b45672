"""Invoices and credit notes as self-contained pages: no script, no outside file, made for A4."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.pages.credit_note import present_credit_note
from gateway.pages.invoice import present_invoice

PAGES = Environment(
    loader=PackageLoader("gateway.pages", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def invoice_html(invoice: dict[str, Any]) -> str:
    """The page of an invoice as metering.invoice gives it. Everything from outside is escaped."""
    return PAGES.get_template("invoice.html").render(present_invoice(invoice))


def credit_note_html(note: dict[str, Any], invoice: dict[str, Any] | None) -> str:
    """The page of a credit note as metering.credit_note gives it, and of the invoice that it is on, if any."""
    return PAGES.get_template("credit_note.html").render(present_credit_note(note, invoice))
