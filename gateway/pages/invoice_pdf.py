"""An invoice as a PDF of A4 pages; the same invoice gives the same bytes."""

from typing import Any

from fpdf import FontFace
from fpdf.enums import CellBordersLayout, TableBordersLayout, TableHeadingsDisplay

from gateway.pages.invoice import present_invoice
from gateway.pages.pdf_page import (
    INK,
    RULE,
    SOFT,
    TINT,
    WIDTH_MM,
    DocumentPage,
    draw_proofs,
    draw_totals,
    start_document,
)

COLUMNS_MM = (80, 28, 32, 34)
EXACT = "Amounts are exact. Every line is the sum of signed receipts; the receipts root is the RFC 6962 hash over them."


def invoice_pdf(invoice: dict[str, Any]) -> bytes:
    """The PDF of an invoice as metering.invoice gives it."""
    shown = present_invoice(invoice)
    pdf = start_document(shown, invoice["issued"] or invoice["from"])
    _draw_lines(pdf, shown)
    draw_totals(pdf, shown)
    draw_proofs(pdf, shown, EXACT)
    return bytes(pdf.output())


def _draw_lines(pdf: DocumentPage, shown: dict[str, Any]) -> None:
    """The table of lines; its headings come again on each page."""
    currency = shown["currency"]
    pdf.ink(INK, 8.5)
    pdf.set_draw_color(*RULE)
    with pdf.table(
        width=WIDTH_MM,
        col_widths=COLUMNS_MM,
        text_align=("LEFT", "RIGHT", "RIGHT", "RIGHT"),
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=FontFace(emphasis="BOLD", color=INK, fill_color=TINT),
        repeat_headings=TableHeadingsDisplay.ON_TOP_OF_EVERY_PAGE,
        line_height=4.0,
        padding=(0.8, 1),
    ) as table:
        table.row(("Description", "Quantity", f"{currency} per million", f"Amount ({currency})"))
        for group in shown["groups"]:
            table.row().cell(group["model"], colspan=4, style=FontFace(emphasis="BOLD"), border=CellBordersLayout.TOP)
            adapter = f"Adapter {group['adapter']}" if group["adapter"] else "Base model"
            small = FontFace(family="Mono", size_pt=6.5, color=SOFT)
            table.row().cell(adapter, colspan=4, style=small, border=CellBordersLayout.BOTTOM)
            for line in group["lines"]:
                table.row((f"   {line['item']}", line["quantity"], line["price"], line["amount"]))
        if not shown["groups"]:
            table.row().cell("Nothing was used in this period.", colspan=4)
