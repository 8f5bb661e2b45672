"""Who issues and who receives: what an invoice prints about either side, as it stands when the invoice is finalised."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metering.billing_status import BillingStatus
from metering.canonical import canonical_bytes, parse_canonical
from metering.ledger import Ledger
from metering.shares import PPM
from metering.store import Connection

TEXT_MAX = 200
ADDRESS_LINES_MAX = 6
DAYS_MAX = {"terms_days": 365, "dispute_days": 3650}


@dataclass(frozen=True, slots=True)
class BillingProfile:
    """One side of an invoice. Construction raises BillingRefused `profile_invalid` naming the first bad field.

    `tax_rate_ppm` (parts per million of the net amount) and `tax_label` are the issuer's; on a client they are an
    exception to the issuer's (None: none), set by the operator. `terms_days`, `dispute_days` (how long after its
    settlement a request may be disputed) and `note` are the issuer's.
    """

    name: str
    address: tuple[str, ...] = ()
    tax_id: str = ""
    email: str = ""
    tax_label: str = "Tax"
    tax_rate_ppm: int | None = None
    terms_days: int = 14
    dispute_days: int = 60
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.address) > ADDRESS_LINES_MAX:
            raise _invalid("address", f"more than {ADDRESS_LINES_MAX} lines")
        for field in ("name", "tax_id", "email", "tax_label", "note"):
            _check_text(field, getattr(self, field))
        for line in self.address:
            _check_text("address", line)
        if not self.name:
            raise _invalid("name", "empty")
        rate_ppm = self.tax_rate_ppm
        if rate_ppm is not None and (type(rate_ppm) is not int or not 0 <= rate_ppm <= PPM):
            raise _invalid("tax_rate_ppm", f"not an integer in [0, {PPM}]")
        for field, most in DAYS_MAX.items():
            days = getattr(self, field)
            if type(days) is not int or not 0 <= days <= most:
                raise _invalid(field, f"not an integer in [0, {most}]")

    def party(self) -> dict[str, Any]:
        """What an invoice says of this side."""
        return {"name": self.name, "address": list(self.address), "tax_id": self.tax_id, "email": self.email}


def parse_profile(value: Any) -> BillingProfile:
    """The profile of a JSON object; BillingRefused `profile_invalid` for unknown members and wrong types."""
    if not isinstance(value, dict) or not isinstance(value.get("address", []), list):
        raise _invalid("profile", "not an object, or address is not an array of lines")
    unknown = sorted(value.keys() - set(BillingProfile.__dataclass_fields__))
    if unknown or "name" not in value:
        raise _invalid("profile", f"unknown {unknown}" if unknown else "name is missing")
    return BillingProfile(**{**value, "address": tuple(value.get("address", ()))})


def put_profile(ledger: Ledger, account: str, profile: BillingProfile) -> None:
    """Store it; invoices that are finalised already keep what they say."""
    body = canonical_bytes({**asdict(profile), "address": list(profile.address)})
    with ledger.store.write() as connection:
        connection.execute(
            "INSERT INTO billing_profiles (account, body) VALUES (?, ?)"
            " ON CONFLICT (account) DO UPDATE SET body = excluded.body",
            (account, body),
        )


def get_profile(ledger: Ledger, account: str) -> BillingProfile:
    """The stored profile, or one that has the account's name only."""
    with ledger.store.read() as connection:
        return read_profile(connection, account)


def read_profile(connection: Connection, account: str) -> BillingProfile:
    rows = connection.execute("SELECT body FROM billing_profiles WHERE account = ?", (account,))
    return parse_profile(parse_canonical(bytes(rows[0][0]))) if rows else BillingProfile(name=account)


def tax_of(issuer: BillingProfile, client: BillingProfile) -> tuple[str, int]:
    """Label and rate (ppm) that apply to a client: its own exception, else the issuer's."""
    source = issuer if client.tax_rate_ppm is None else client
    return source.tax_label, source.tax_rate_ppm or 0


def tax_nanos(net_nanos: int, rate_ppm: int) -> int:
    """Tax on a net amount, rounded to the nearest nano, halves up."""
    return (net_nanos * rate_ppm * 2 + PPM) // (2 * PPM)


def _check_text(field: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > TEXT_MAX or not value.isprintable():
        raise _invalid(field, f"not at most {TEXT_MAX} printable characters")


def _invalid(field: str, detail: str) -> Exception:
    return BillingStatus.PROFILE_INVALID.refuse(f"{field}: {detail}")
