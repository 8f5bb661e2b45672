"""The market that is simulated: three tenants, two adapters, the base model, prices, and events of all kinds."""

from __future__ import annotations

import random
import shutil
from functools import cache
from pathlib import Path

from metering.billing_profile import BillingProfile, put_profile
from metering.canonical import digest
from metering.config import MeteringConfig
from metering.event import UsageEvent
from metering.ledger import Ledger
from metering.note import NoteSigner
from metering.pricebook import PriceBook, Prices, Tier
from metering.terms import Terms

BASE, HEAD = digest(b"base"), digest(b"head")
TENANTS = {"acme": 10**9, "bolt": 10**7, "poor": 9_000}  # nanos; the last is soon short of money
TIERS = {"completion": (Tier(40, 180), Tier(120, 150)), "prompt": (Tier(60, 80),)}  # a month of a run has so many
BOOK = PriceBook("USD", 1, Prices(10, 1, 20), Prices(100, 10, 203, TIERS), {})
SPLIT_PPM = {"contributors": 700_001, "trainer": 99_999, "host": 100_000, "governance": 50_000, "treasury": 50_000}
TAX_PPM = 777_777  # dear enough that a wallet often lacks it
LATE_BOOK = PriceBook("USD", 2, Prices(1, 1, 1), Prices(3, 3, 7), {})  # its document arrives after its events


def adapter_terms(name: str, fidelity_ppm: int, declared: dict[str, int]) -> Terms:
    return Terms(
        adapter=digest(name.encode()), head=HEAD, method="calibrated", fidelity_ppm=fidelity_ppm, base=BASE,
        datanet=name, datanet_version=digest(b"version"), publisher="pia", declared=declared,
        split_ppm=SPLIT_PPM, trainer="tom", host="hal",
    )  # fmt: skip


TERMS = (
    adapter_terms("facts", 300_000, {"ada": 5, "bob": 3, "cyd": 1, "dee": 1}),
    adapter_terms("poems", 1_000_000, {"eve": 1, "ada": 2, "fay": 4}),
    Terms(
        adapter=None, head=None, method=None, fidelity_ppm=0, base=BASE, datanet=None, datanet_version=None,
        publisher=None, declared={}, trainer=None, host="hal",
        split_ppm={"contributors": 0, "trainer": 0, "host": 900_000, "governance": 0, "treasury": 100_000},
    ),
)  # fmt: skip
PAYEES = ["contributor:ada", "contributor:eve", "contributor:bob", "trainer:tom", "host:hal", "governance:poems"]
DOCUMENTS = {terms.digest: terms.encode() for terms in TERMS}
BOOKS = {book.digest: book.encode() for book in (BOOK, LATE_BOOK)}
TERMS_DIGESTS = tuple(DOCUMENTS)


def random_event(dice: random.Random, number: int, time_unix_us: int, tenant: str) -> UsageEvent:
    """What one request used: any terms, signed scores, sometimes a canary, a lost answer or a book nobody has yet."""
    choice = dice.randrange(len(TERMS))
    terms = TERMS[choice]
    prompt = dice.randrange(40)
    names = [name for name in terms.declared if dice.random() < 0.8]
    return UsageEvent(
        id=f"req_{number:032x}",
        time_unix_us=time_unix_us,
        tenant=tenant,
        key_id="key-1",
        model=terms.datanet or "base",
        endpoint="chat.completions",
        base=BASE,
        terms=TERMS_DIGESTS[choice],
        price_book=(LATE_BOOK if dice.random() < 0.05 else BOOK).digest,
        prompt_tokens=prompt,
        cached_tokens=dice.randrange(prompt + 1),
        completion_tokens=dice.randrange(30),
        finish_reasons=("stop",),
        tokens_commitment=HEAD,
        adapter=terms.adapter,
        head=terms.head,
        scores={name: dice.randrange(-(10**6), 2 * 10**6) for name in names},
        purpose=dice.choices(("serve", "canary", "lost"), (92, 5, 3))[0],
    )


@cache
def template(root: Path) -> Path:
    """A data directory with the schema, the documents, the wallets and the log's key: copied for each run."""
    config = MeteringConfig(data_dir=root / "template")
    ledger = Ledger.open(config)
    for body in DOCUMENTS.values():
        ledger.put_document("terms", body)
    ledger.put_document("price_book", BOOK.encode())
    for tenant, amount in TENANTS.items():
        ledger.credit(f"topup/{tenant}/0", tenant, amount).require()
    put_profile(ledger, "operator", BillingProfile("Issuer", tax_label="VAT", tax_rate_ppm=TAX_PPM))
    ledger.close()  # the last connection leaves one file
    NoteSigner.load_or_create(config.log_key_path, config.log_public_key_path, config.log_origin)
    return config.data_dir


def copy_template(root: Path, target: Path) -> None:
    target.mkdir()
    for name in ("ledger.db", "log.key", "log.pub"):
        shutil.copyfile(template(root) / name, target / name)
