"""The contracts' own rules, called directly."""

from __future__ import annotations

import hashlib
import json

import pytest

from metering import merkle
from metering.chain.contract import ARTIFACTS, contract
from metering.chain.errors import ChainRefused
from metering.chain.node import compile_contracts
from metering.chain.tree import PayoutTree

ADA = "0x" + "aa" * 20
DOCUMENT = b"\x01" * 32


@pytest.fixture
def refused(chain):
    """The reason why a call reverts."""

    def refused(name: str, address: str, function: str, *arguments, sender=None) -> str:
        with pytest.raises(ChainRefused) as caught:
            chain.send(f"refused/{function}", name, address, function, *arguments, sender=sender)
        return caught.value.reason

    return refused


@pytest.fixture
def distributor(chain):
    """Call the distributor as the operator (or another)."""

    def call(function: str, *arguments, sender=None):
        key = f"test/{chain.rpc.head()}/{function}"
        return chain.send(key, "PayoutDistributor", chain.deployment.distributor, function, *arguments, sender=sender)

    return call


def why(call, *arguments, **keywords) -> str:
    with pytest.raises(ChainRefused) as caught:
        call(*arguments, **keywords)
    return caught.value.reason


def test_artifacts_are_what_the_sources_compile_to(modules, tmp_path):
    """The checked-in ABIs and bytecode are reproduced from contracts/src, byte for byte."""
    compile_contracts(modules, tmp_path)
    names = sorted(path.name for path in ARTIFACTS.glob("*.json"))
    assert names == sorted(path.name for path in tmp_path.glob("*.json"))
    for name in names:
        assert json.loads((tmp_path / name).read_text()) == json.loads((ARTIFACTS / name).read_text()), name


class TestDistributor:
    def test_only_a_publisher_proposes_and_only_an_admin_rescues(self, chain, distributor):
        """Every privileged function refuses a stranger by role."""
        stranger = chain.as_signer("ada")
        for function, arguments in (
            ("propose", (1, DOCUMENT, 0, DOCUMENT)),
            ("cancel", ()),
            ("rescue", (chain.deployment.token, ADA, 1)),
        ):
            assert why(distributor, function, *arguments, sender=stranger) == "AccessControlUnauthorizedAccount"

    def test_epochs_are_consecutive_and_totals_never_fall(self, chain, distributor):
        """A replayed, skipped or shrinking epoch is refused."""
        chain.fund(100)
        distributor("propose", 1, PayoutTree({ADA: 60}).root, 60, DOCUMENT)
        assert why(distributor, "propose", 1, DOCUMENT, 60, DOCUMENT) == "EpochNotNext"
        assert why(distributor, "propose", 3, DOCUMENT, 60, DOCUMENT) == "EpochNotNext"
        assert why(distributor, "propose", 2, DOCUMENT, 59, DOCUMENT) == "TotalDecreased"
        assert why(distributor, "propose", 2, DOCUMENT, 101, DOCUMENT) == "Underfunded"

    def test_tree_that_promises_more_than_its_total_pays_no_more_than_its_total(self, chain, distributor):
        """A root whose leaves exceed the stated total cannot drain the contract."""
        chain.fund(1000)
        tree = PayoutTree({ADA: 900})
        distributor("propose", 1, tree.root, 10, DOCUMENT)
        assert why(distributor, "claim", ADA, 900, tree.proof(ADA)) == "TotalExceeded"

    def test_rescue_takes_the_surplus_and_other_tokens_only(self, chain, distributor):
        """What was promised cannot be taken out, not even by the admin."""
        chain.fund(100)
        tree = PayoutTree({ADA: 60})
        distributor("propose", 1, tree.root, 60, DOCUMENT)
        token = chain.deployment.token
        assert why(distributor, "rescue", token, "0x" + "bb" * 20, 41) == "SurplusExceeded"
        distributor("rescue", token, "0x" + "bb" * 20, 40)
        distributor("claim", ADA, 60, tree.proof(ADA))
        assert (chain.tokens(ADA), chain.tokens(chain.deployment.distributor)) == (60, 0)
        assert why(distributor, "rescue", token, "0x" + "bb" * 20, 1) == "SurplusExceeded"


class TestAnchor:
    LEAVES = tuple(hashlib.sha256(bytes([i])).digest() for i in range(9))

    def root(self, size: int) -> bytes:
        return merkle.tree_root(merkle.MemoryNodes(self.LEAVES[:size]), size)

    def proof(self, old: int, new: int) -> list[bytes]:
        return merkle.consistency_proof(merkle.MemoryNodes(self.LEAVES[:new]), old, new)

    def test_contract_accepts_exactly_the_consistent_extensions(self, chain):
        """For all tree sizes up to 9: the right proof passes; a wrong root, hash or length does not."""
        address, interface = chain.deployment.anchor, contract("CheckpointAnchor")

        def accepted(origin: str, new: int, root: bytes, proof: list[bytes]) -> bool:
            data = "0x" + interface.call_data("anchor", origin, new, root, proof).hex()
            try:
                chain.rpc.simulate({"from": chain.signer.address, "to": address, "data": data}, chain.rpc.head())
            except ChainRefused as error:
                return error.reason != "Inconsistent"
            return True

        for old in range(1, 9):
            origin = f"log{old}"
            chain.send(f"anchor/{old}", "CheckpointAnchor", address, "anchor", origin, old, self.root(old), [])
            for new in range(old + 1, 10):
                proof = self.proof(old, new)
                assert accepted(origin, new, self.root(new), proof), (old, new)
                assert not accepted(origin, new, b"\x07" * 32, proof), (old, new)
                assert not accepted(origin, new, self.root(new), [*proof, b"\x07" * 32]), (old, new)
                assert not accepted(origin, new, self.root(new), proof[:-1]), (old, new)
                for i in range(len(proof)):
                    broken = [*proof[:i], b"\x07" * 32, *proof[i + 1 :]]
                    assert not accepted(origin, new, self.root(new), broken), (old, new, i)

    @pytest.mark.parametrize("old", [3, 4, 6])
    def test_true_log_cannot_follow_a_forged_head(self, chain, refused, old):
        """A proof between two trees is of no use when the anchored root is of neither: both roots are recomputed."""
        address = chain.deployment.anchor
        chain.send("forged", "CheckpointAnchor", address, "anchor", "log", old, b"\x07" * 32, [])
        arguments = ("log", 9, self.root(9), self.proof(old, 9))
        assert refused("CheckpointAnchor", address, "anchor", *arguments) == "Inconsistent"

    def test_size_grows_and_only_the_anchorer_anchors(self, chain, refused):
        """The same or a smaller size is refused, and so is a stranger."""
        address = chain.deployment.anchor
        chain.send("one", "CheckpointAnchor", address, "anchor", "log", 4, self.root(4), [])
        for size in (3, 4):
            arguments = ("log", size, self.root(size), [])
            assert refused("CheckpointAnchor", address, "anchor", *arguments) == "SizeNotGreater"
        arguments = ("log", 5, self.root(5), self.proof(4, 5))
        stranger = chain.as_signer("ada")
        reason = refused("CheckpointAnchor", address, "anchor", *arguments, sender=stranger)
        assert reason == "AccessControlUnauthorizedAccount"


class TestRegistry:
    VERSION, ADAPTER = b"\x02" * 32, b"\x03" * 32

    @pytest.fixture
    def registry(self, chain):
        def call(function: str, *arguments, sender=None):
            key = f"test/{chain.rpc.head()}/{function}"
            return chain.send(key, "DatanetRegistry", chain.deployment.registry, function, *arguments, sender=sender)

        return call

    @pytest.fixture
    def datanet(self, chain, registry) -> bytes:
        registry("registerDatanet", "facts", chain.signer.address)
        return chain.rpc.read("DatanetRegistry", chain.deployment.registry, "idOf", "facts")

    @pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a.b", "ä", "a" * 64])
    def test_names_outside_the_format_are_refused(self, chain, registry, name):
        """The contract accepts exactly the namespaces of docs/ARCHITECTURE.md."""
        assert why(registry, "registerDatanet", name, chain.signer.address) == "NameInvalid"

    def test_name_version_and_adapter_are_registered_once(self, chain, registry, datanet):
        """Nothing that was registered can be registered again or overwritten."""
        assert why(registry, "registerDatanet", "facts", ADA) == "AlreadyRegistered"
        assert why(registry, "registerAdapter", datanet, self.VERSION, self.ADAPTER) == "VersionUnknown"
        registry("publishVersion", datanet, self.VERSION)
        assert why(registry, "publishVersion", datanet, self.VERSION) == "AlreadyRegistered"
        registry("registerAdapter", datanet, self.VERSION, self.ADAPTER)
        assert why(registry, "registerAdapter", datanet, self.VERSION, self.ADAPTER) == "AlreadyRegistered"
        known = chain.rpc.read("DatanetRegistry", chain.deployment.registry, "adapterOf", self.ADAPTER)
        assert known[:2] == (datanet, self.VERSION)

    def test_ownership_moves_in_two_steps(self, chain, registry, datanet):
        """Only the owner publishes; the next owner must accept, and then the former is a stranger."""
        ada = chain.as_signer("ada")
        assert why(registry, "publishVersion", datanet, self.VERSION, sender=ada) == "NotOwner"
        registry("offerOwnership", datanet, ada.address)
        assert why(registry, "publishVersion", datanet, self.VERSION, sender=ada) == "NotOwner"
        assert why(registry, "acceptOwnership", datanet) == "NotOwner"
        registry("acceptOwnership", datanet, sender=ada)
        registry("publishVersion", datanet, self.VERSION, sender=ada)
        assert why(registry, "publishVersion", datanet, self.ADAPTER) == "NotOwner"

    def test_revoked_adapter_stays_on_record(self, chain, registry, datanet):
        """Only the owner revokes, once; the record is kept."""
        registry("publishVersion", datanet, self.VERSION)
        assert why(registry, "revokeAdapter", self.ADAPTER) == "AdapterUnknown"
        registry("registerAdapter", datanet, self.VERSION, self.ADAPTER)
        assert why(registry, "revokeAdapter", self.ADAPTER, sender=chain.as_signer("ada")) == "NotOwner"
        registry("revokeAdapter", self.ADAPTER)
        known = chain.rpc.read("DatanetRegistry", chain.deployment.registry, "adapterOf", self.ADAPTER)
        assert known[3] is True
        assert why(registry, "revokeAdapter", self.ADAPTER) == "AlreadyRegistered"

    def test_strangers_register_no_names(self, chain, registry):
        """Names are given by registrars."""
        stranger = chain.as_signer("ada")
        reason = why(registry, "registerDatanet", "mine", stranger.address, sender=stranger)
        assert reason == "AccessControlUnauthorizedAccount"
