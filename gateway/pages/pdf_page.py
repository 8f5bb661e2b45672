"""What the PDFs of invoices and credit notes have in common: A4, fonts, head, totals, proofs; drawn with fpdf2."""

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fpdf import FPDF

INK, SOFT, RULE, TINT, ACCENT, ALERT = (
    (22, 32, 44),
    (91, 103, 118),
    (217, 222, 229),
    (245, 247, 249),
    (11, 93, 78),
    (163, 64, 15),
)
MARGIN_MM, WIDTH_MM = 18.0, 174.0
STATUS_COLOURS = {"paid": ACCENT, "open": ALERT, "void": ALERT, "draft": SOFT, "issued": ACCENT}


class DocumentPage(FPDF):
    """A4 with our fonts and a footer that numbers the pages."""

    def __init__(self, footer_text: str) -> None:
        super().__init__(format="A4")
        self._footer_text = footer_text
        self.set_margins(MARGIN_MM, 16, MARGIN_MM)
        self.set_auto_page_break(True, margin=22)
        self.alias_nb_pages()
        for name, style, file in (("Sans", "", "Sans"), ("Sans", "B", "Sans-Bold"), ("Mono", "", "SansMono")):
            self.add_font(name, style, fonts() / f"DejaVu{file}.ttf")

    def footer(self) -> None:
        """Number and page, at the foot of each page."""
        self.set_y(-14)
        self.ink(SOFT, 7.5)
        self.cell(WIDTH_MM / 2, 4, self._footer_text)
        self.cell(WIDTH_MM / 2, 4, f"Page {self.page_no()} of {{nb}}", align="R")

    def ink(self, colour: tuple[int, int, int], size_pt: float, style: str = "", family: str = "Sans") -> None:
        """Colour and font of what is written next."""
        self.set_text_color(*colour)
        self.set_font(family, style, size_pt)

    def line_of(self, text: str, align: str = "L", width_mm: float = WIDTH_MM / 2, x_mm: float | None = None) -> None:
        """One wrapped line, then down."""
        self.set_x(MARGIN_MM if x_mm is None else x_mm)
        self.multi_cell(width_mm, 4.6, text, align=align, new_x="LMARGIN", new_y="NEXT")


def start_document(shown: dict[str, Any], time: str) -> DocumentPage:
    """The first page with its head. `time` (RFC 3339) is the file's: the same document gives the same bytes."""
    pdf = DocumentPage(f"{shown['issuer']['name']} · {shown['title']} {shown['number']}")
    pdf.set_title(f"{shown['title']} {shown['number']}")
    pdf.set_author(shown["issuer"]["name"])
    pdf.set_creation_date(datetime.fromisoformat(time).astimezone(UTC))
    pdf.add_page()
    _draw_head(pdf, shown)
    return pdf


def fonts() -> Path:
    """The DejaVu fonts, which cover the names of most of the world and travel with matplotlib."""
    found = find_spec("matplotlib")
    assert found, "matplotlib is in .ci/requirements"
    assert found.origin
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


def _draw_head(pdf: DocumentPage, shown: dict[str, Any]) -> None:
    """Title and issuer, then client and facts, side by side."""
    right_mm = MARGIN_MM + WIDTH_MM / 2
    top = pdf.get_y()
    pdf.ink(INK, 20, "B")
    pdf.cell(WIDTH_MM / 2, 9, shown["title"], new_x="LMARGIN", new_y="NEXT")
    pdf.ink(STATUS_COLOURS[shown["status"]], 8.5, "B")
    pdf.cell(WIDTH_MM / 2, 6, shown["status"].upper(), new_x="LMARGIN", new_y="NEXT")
    left_end = pdf.get_y()
    pdf.set_y(top)
    _draw_party(pdf, shown["issuer"], "R", right_mm)
    pdf.set_y(max(left_end, pdf.get_y()) + 8)
    top = pdf.get_y()
    pdf.ink(SOFT, 7.5, "B")
    pdf.line_of(shown["addressee"].upper())
    _draw_party(pdf, shown["client"], "L", MARGIN_MM)
    left_end = pdf.get_y()
    pdf.set_y(top)
    for label, value in shown["facts"]:
        pdf.set_x(right_mm)
        pdf.ink(SOFT, 9)
        pdf.cell(WIDTH_MM / 4, 5.2, label)
        pdf.ink(INK, 9)
        pdf.cell(WIDTH_MM / 4, 5.2, value, align="R", new_x="LMARGIN", new_y="NEXT")
    pdf.set_y(max(left_end, pdf.get_y()) + 6)


def _draw_party(pdf: DocumentPage, party: dict[str, Any], align: str, x_mm: float) -> None:
    pdf.ink(INK, 10, "B")
    pdf.line_of(party["name"], align, x_mm=x_mm)
    pdf.ink(INK, 9)
    for line in party["address"]:
        pdf.line_of(line, align, x_mm=x_mm)
    pdf.ink(SOFT, 9)
    for line in (f"Tax ID {party['tax_id']}" if party["tax_id"] else "", party["email"]):
        if line:
            pdf.line_of(line, align, x_mm=x_mm)


def draw_totals(pdf: DocumentPage, shown: dict[str, Any]) -> None:
    """Right-aligned under the lines, never apart from each other."""
    width_mm, start_mm = 92.0, MARGIN_MM + WIDTH_MM - 92.0
    rows = [(row["label"], row["amount"], row["weight"]) for row in shown["totals"]]
    rows += [(f"Credited since by {note['number']}", note["amount"], "") for note in shown.get("credits", ())]
    if pdf.get_y() + 6 * len(rows) > pdf.h - 26:
        pdf.add_page()
    pdf.ln(4)
    for label, text, weight in rows:
        pdf.set_x(start_mm)
        if weight:
            pdf.set_draw_color(*INK)
            pdf.line(start_mm, pdf.get_y(), start_mm + width_mm, pdf.get_y())
        pdf.ink(INK, 10.5 if weight else 9, "B" if weight else "")
        pdf.cell(width_mm * 0.6, 5.8, label)
        pdf.cell(width_mm * 0.4, 5.8, text, align="R", new_x="LMARGIN", new_y="NEXT")
    if shown["note"]:
        pdf.ln(5)
        pdf.ink(INK, 9)
        pdf.line_of(shown["note"], width_mm=WIDTH_MM)


def draw_proofs(pdf: DocumentPage, shown: dict[str, Any], explanation: str) -> None:
    """What lets anyone check the document, at the foot of its last page."""
    box_mm = 4.6 * len(shown["proofs"]) + 4
    height_mm = box_mm + 8
    if pdf.get_y() + 5 + height_mm > pdf.h - 22:
        pdf.add_page()
    pdf.set_y(max(pdf.get_y() + 5, pdf.h - 24 - height_mm))
    top = pdf.get_y()
    pdf.set_fill_color(*TINT)
    pdf.rect(MARGIN_MM, top, WIDTH_MM, box_mm, style="F")
    pdf.set_fill_color(*ACCENT)
    pdf.rect(MARGIN_MM, top, 0.7, box_mm, style="F")
    pdf.set_y(top + 2)
    for label, value in shown["proofs"]:
        pdf.set_x(MARGIN_MM + 4)
        pdf.ink(SOFT, 8)
        pdf.cell(34, 4.6, label)
        pdf.ink(INK, 7.5, family="Mono")
        pdf.cell(WIDTH_MM - 40, 4.6, value, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(3)
    pdf.ink(SOFT, 7.5)
    pdf.line_of(explanation, width_mm=WIDTH_MM)
