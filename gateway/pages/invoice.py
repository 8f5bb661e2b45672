"""What an invoice shows to people, on a page and in a PDF: the same strings, from the invoice that the ledger gives."""

from typing import Any

from gateway.pages.writing import amount_writer, date_text, period_text, rate_text, thousands
from metering.invoice import KIND_LABELS
from metering.money import format_nanos

MILLION = 1_000_000
TITLES = {"draft": "Draft invoice", "open": "Invoice", "paid": "Invoice", "void": "Void invoice"}


def present_invoice(invoice: dict[str, Any]) -> dict[str, Any]:
    """Titles, parties, groups of lines, totals and proofs as text.

    All amounts have the decimals that the longest of them needs (at least 2), so that columns align and nothing is
    rounded; prices are per million tokens.
    """
    amount = amount_writer(_amounts(invoice))
    return {
        "title": TITLES[invoice["status"]],
        "addressee": "Bill to",
        "number": invoice["number"] or "—",
        "status": invoice["status"],
        "currency": invoice["currency"],
        "issuer": invoice["issuer"],
        "client": {**invoice["client"], "account": invoice["tenant"]},
        "facts": _facts(invoice),
        "groups": _groups(invoice, amount),
        "totals": _totals(invoice, amount),
        "credits": [
            {"number": note["number"], "amount": f"−{amount(note['total_nanos'])}"}
            for note in invoice.get("credit_notes", ())
        ],
        "proofs": _proofs(invoice),
        "note": invoice["note"],
    }


def _facts(invoice: dict[str, Any]) -> list[tuple[str, str]]:
    """What stands beside the title."""
    facts = [
        ("Invoice number", invoice["number"] or "not issued yet"),
        ("Billing period", period_text(invoice["period"])),
    ]
    if invoice["issued"]:
        facts += [("Date of issue", date_text(invoice["issued"])), ("Payment due", date_text(invoice["due"]))]
    return [*facts, ("Client account", invoice["tenant"])]


def _groups(invoice: dict[str, Any], amount: Any) -> list[dict[str, Any]]:
    """The lines of each model and adapter, with their sum."""
    groups: dict[tuple[str, str | None], dict[str, Any]] = {}
    for line in invoice["lines"]:
        key = (line["model"], line["adapter"])
        group = groups.setdefault(key, {"model": line["model"], "adapter": line["adapter"], "lines": [], "nanos": 0})
        group["nanos"] += line["amount_nanos"]
        label = KIND_LABELS[line["kind"]].capitalize()
        group["lines"].append(
            {
                "item": label if line["unit_nanos"] else f"{label} (free of charge)",
                "quantity": f"{line['quantity']:,}",
                "price": thousands(format_nanos(line["unit_nanos"] * MILLION, 2)),
                "amount": amount(line["amount_nanos"]),
            }
        )
    return [{**group, "amount": amount(group["nanos"])} for group in groups.values()]


def _totals(invoice: dict[str, Any], amount: Any) -> list[dict[str, Any]]:
    """Label, amount and weight of each row under the lines."""
    tax = invoice["tax"]
    rows = [("Subtotal", amount(invoice["subtotal_nanos"]), "")]
    for one in invoice["adjustments"]:
        rows.append((f"Credit note {one['credit_note']}", f"−{amount(one['amount_nanos'])}", ""))
    if invoice["adjustments"]:
        rows.append(("Net amount", amount(invoice["net_nanos"]), ""))  # what the tax is on
    rows.append((f"{tax['label']} {rate_text(tax['rate_ppm'])}", amount(tax["amount_nanos"]), ""))
    rows.append((f"Total {invoice['currency']}", amount(invoice["total_nanos"]), "strong"))
    if invoice["status"] in ("open", "paid"):
        due_nanos = invoice["amount_due_nanos"]
        paid_nanos = invoice["total_nanos"] - due_nanos
        rows.append(("Paid from prepaid credit", f"−{amount(paid_nanos)}" if paid_nanos else amount(0), ""))
        rows.append((f"Amount due {invoice['currency']}", amount(due_nanos), "strong"))
    return [{"label": label, "amount": text, "weight": weight} for label, text, weight in rows]


def _proofs(invoice: dict[str, Any]) -> list[tuple[str, str]]:
    """How the invoice can be checked against the transparency log."""
    receipts = invoice["receipts"]
    proofs = [("Receipts", f"{receipts['count']:,}"), ("Receipts root", receipts["root"])]
    if receipts["count"]:
        proofs.append(("Log leaves", f"{receipts['first_leaf']:,} to {receipts['last_leaf']:,}"))
    if invoice.get("digest"):
        proofs.append(("Document digest", invoice["digest"]))
    return proofs


def _amounts(invoice: dict[str, Any]) -> list[int]:
    """All that is shown."""
    amounts = [line["amount_nanos"] for line in invoice["lines"]]
    amounts += [one["amount_nanos"] for one in invoice["adjustments"]]
    amounts += [note["total_nanos"] for note in invoice.get("credit_notes", ())]
    return [*amounts, invoice["tax"]["amount_nanos"], invoice.get("amount_due_nanos", 0)]
