"""Everything that metering.chain raises.

ChainError (a MeteringError)
├── ChainUnavailable     the node did not answer within the outage limit; run again, nothing is lost
├── NotFinal             submitted, but not buried under enough blocks in time; run again to go on waiting
├── ChainRefused         a call or transaction reverted; `reason` is the contract's error, or the node's
├── WrongChain           another chain id, or no contract where the deployment says one is
├── DeploymentInvalid    chain.json is missing, malformed, or of another currency
├── KeyMissing           no signing key was named
├── KeyInvalid           a key, keystore or password that does not work
├── RateInvalid          amounts cannot be converted into units of the token exactly
├── AnchorConflict       the chain has a checkpoint that the log does not extend: one of the two was rewritten
├── PayoutConflict       the chain's payout tree is not the ledger's
├── ProposalCancelled    a guardian withdrew the proposed tree; an operator must decide
├── BindingInvalid       a payout binding with a bad address, sequence or signature
├── BindingMissing       no payout address is recorded for that account
├── NothingPublished     no payout tree pays that account (yet)
└── ClaimInvalid         a claim file that is malformed, or whose proof does not lead to its root
"""

from __future__ import annotations

from metering.errors import MeteringError


class ChainError(MeteringError):
    pass


class ChainUnavailable(ChainError):
    pass


class NotFinal(ChainError):
    pass


class ChainRefused(ChainError):
    """`reason` is a name to test for, `detail` its arguments or the node's words."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class WrongChain(ChainError):
    pass


class DeploymentInvalid(ChainError):
    pass


class KeyMissing(ChainError):
    pass


class KeyInvalid(ChainError):
    pass


class RateInvalid(ChainError):
    pass


class AnchorConflict(ChainError):
    pass


class PayoutConflict(ChainError):
    pass


class ProposalCancelled(ChainError):
    pass


class BindingInvalid(ChainError):
    pass


class BindingMissing(ChainError):
    pass


class NothingPublished(ChainError):
    pass


class ClaimInvalid(ChainError):
    pass
