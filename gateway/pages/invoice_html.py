"""An invoice as one self-contained page: no script, no outside file, made for A4."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.pages.presentation import present

PAGES = Environment(
    loader=PackageLoader("gateway.pages", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def invoice_html(invoice: dict[str, Any]) -> str:
    """The page of an invoice as metering.invoice gives it. Everything from outside is escaped."""
    return PAGES.get_template("invoice.html").render(present(invoice))
