"""What tests of every package share: one running stack a session."""

from collections.abc import Iterator

import pytest

from tests.gateway.stack import Stack, demo_base, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running stack on the demo base model for all engine tests of the session; every scored request is sampled."""
    every = {"OPENLEDGER_AUDIT_SHARE_PPM": "1000000"}
    with running_stack(tmp_path_factory.mktemp("stack") / "data", demo_base(), environment=every) as running:
        yield running
