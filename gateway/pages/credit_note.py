"""What a credit note shows to people, on a page and in a PDF: the same strings, from the ledger's document."""

from typing import Any

from gateway.pages.writing import amount_writer, date_text, period_text, rate_text


def present_credit_note(note: dict[str, Any], invoice: dict[str, Any] | None) -> dict[str, Any]:
    """Title, parties, the one line, totals and proofs as text. `invoice`: the one that it is on, which has the tax's
    name and rate; None when the month's invoice will show the note."""
    amount = amount_writer([note["amount_nanos"], note["tax_nanos"]])
    currency, total = note["currency"], amount(note["total_nanos"])
    totals = [("Net amount", amount(note["amount_nanos"]), "")]
    if invoice:
        tax = invoice["tax"]
        totals.append((f"{tax['label']} {rate_text(tax['rate_ppm'])}", amount(note["tax_nanos"]), ""))
    totals += [(f"Total credited {currency}", total, "strong"), ("Paid to prepaid credit", total, "")]
    return {
        "title": "Credit note",
        "addressee": "Credit to",
        "number": note["number"],
        "status": "issued",
        "currency": currency,
        "issuer": note["issuer"],
        "client": {**note["client"], "account": note["tenant"]},
        "facts": _facts(note, invoice),
        "subject": f"Credit on invoice {note['invoice']}" if invoice else f"Credit on {period_text(note['period'])}",
        "request_id": note["request_id"],
        "reason": note["reason"],
        "net": amount(note["amount_nanos"]),
        "totals": [{"label": label, "amount": text, "weight": weight} for label, text, weight in totals],
        "proofs": _proofs(note),
        "note": "" if invoice else f"It will appear on the invoice of {period_text(note['period'])}.",
    }


def _facts(note: dict[str, Any], invoice: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What stands beside the title."""
    facts = [("Credit note number", note["number"]), ("Date of issue", date_text(note["issued"]))]
    if invoice:
        facts += [("Invoice", note["invoice"]), ("Invoice date", date_text(invoice["issued"]))]
    return [*facts, ("Billing period", period_text(note["period"])), ("Client account", note["tenant"])]


def _proofs(note: dict[str, Any]) -> list[tuple[str, str]]:
    """How the note can be checked against the transparency log and the ledger."""
    proofs = [("Document digest", note["digest"])]
    if note["invoice_digest"]:
        proofs.append(("Invoice digest", note["invoice_digest"]))
    return [*proofs, *(("Transfer", transfer["id"]) for transfer in note["transfers"])]
