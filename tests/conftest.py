"""What tests of every package share: one running stack a session."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.gateway.stack import Stack, demo_base, running_stack

# A busy machine is no finding: nothing may fail for the time it took.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running stack on the demo base model for all engine tests of the session; every scored request is sampled."""
    every = {"OPENLEDGER_AUDIT_SHARE_PPM": "1000000"}
    with running_stack(tmp_path_factory.mktemp("stack") / "data", demo_base(), environment=every) as running:
        yield running
