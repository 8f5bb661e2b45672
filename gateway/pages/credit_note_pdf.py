"""A credit note as a PDF of one A4 page; the same note gives the same bytes."""

from typing import Any

from fpdf import FontFace
from fpdf.enums import TableBordersLayout

from gateway.pages.credit_note import present_credit_note
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

EXACT = "Amounts are exact. The total was moved to the client's prepaid credit by the transfers named above."


def credit_note_pdf(note: dict[str, Any], invoice: dict[str, Any] | None) -> bytes:
    """The PDF of a credit note as metering.credit_note gives it, and of the invoice that it is on, if any."""
    shown = present_credit_note(note, invoice)
    pdf = start_document(shown, note["issued"])
    _draw_line(pdf, shown)
    draw_totals(pdf, shown)
    draw_proofs(pdf, shown, EXACT)
    return bytes(pdf.output())


def _draw_line(pdf: DocumentPage, shown: dict[str, Any]) -> None:
    """What is credited, why, and how much."""
    pdf.ink(INK, 8.5)
    pdf.set_draw_color(*RULE)
    with pdf.table(
        width=WIDTH_MM,
        col_widths=(140, 34),
        text_align=("LEFT", "RIGHT"),
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=FontFace(emphasis="BOLD", color=INK, fill_color=TINT),
        line_height=4.0,
        padding=(0.8, 1),
    ) as table:
        table.row(("Description", f"Amount ({shown['currency']})"))
        table.row().cell(shown["subject"], colspan=2, style=FontFace(emphasis="BOLD"))
        if shown["request_id"]:
            small = FontFace(family="Mono", size_pt=6.5, color=SOFT)
            table.row().cell(f"Request {shown['request_id']}", colspan=2, style=small)
        table.row((f"   {shown['reason']}", shown["net"]))
