"""Deploying the contracts: resumable, since each creation is a transaction of the outbox."""

from __future__ import annotations

from metering.chain.contract import contract
from metering.chain.deployment import Deployment
from metering.chain.errors import WrongChain
from metering.chain.rate import Rate, par_rate
from metering.chain.rpc import Receipt
from metering.chain.sender import Sender

TEST_TOKEN_DECIMALS = 6


def deploy(
    sender: Sender,
    chain_id: int,
    currency: str,
    token: str | None,
    delay_seconds: int = 0,
    rate: Rate | None = None,
    label: str = "first",
) -> tuple[Deployment, dict[str, Receipt]]:
    """Create registry, anchor and distributor (and, with `token` None, a TestToken) with the sender as admin of all.

    `delay_seconds`: how long a payout tree waits before it takes effect. `rate` None: one token for one unit of the
    currency. Waits until everything is final; the receipts by contract name. After a crash it goes on where it was;
    another `label` makes another set of contracts.
    """
    receipts: dict[str, Receipt] = {}

    def create(name: str, *arguments: object) -> str:
        receipts[name] = sender.finish(f"deploy/{label}/{name}", None, contract(name).creation(*arguments))
        address = receipts[name].contract_address
        assert address is not None
        return address

    if token is None:
        token = create("TestToken", TEST_TOKEN_DECIMALS)
    elif not sender.rpc.code(token):
        raise WrongChain(f"no contract at {token}")
    exact = rate or par_rate(sender.rpc.read("TestToken", token, "decimals"))
    deployment = Deployment(
        chain_id=chain_id,
        registry=create("DatanetRegistry", sender.address),
        anchor=create("CheckpointAnchor", sender.address),
        distributor=create("PayoutDistributor", token, delay_seconds, sender.address),
        token=token,
        currency=currency,
        nanos_per_step=exact.nanos_per_step,
        units_per_step=exact.units_per_step,
    )
    return deployment, receipts
