"""Fixtures. The clients read the address of the gateway from the environment."""

import os
import time

import pytest

from e2b import Sandbox

TLS = os.environ["CATNAP_TRANSPORT"] == "tls"
"""Each sandbox has a host name, over TLS. Otherwise all requests go to one plain address, with routing headers."""

NEWEST = hasattr(Sandbox, "create") and "idempotency_key" in Sandbox.create.__code__.co_varnames
"""The client calls `/v2/sandboxes`."""

needs_names = pytest.mark.skipif(not TLS, reason="needs a host name for each sandbox")
newest_only = pytest.mark.skipif(not NEWEST, reason="this client does not have the feature")


def wait_until(condition, timeout=60):
    """Polls a condition, and returns its value once it is true."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "timed out"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def shared():
    """A sandbox for all tests that leave it usable."""
    sandbox = Sandbox.create(timeout=3000, envs={"COLOUR": "blue"}, metadata={"for": "all"})
    yield sandbox
    sandbox.kill()


@pytest.fixture
def create():
    """Creates sandboxes that are killed after the test."""
    created = []

    def create_sandbox(*args, **kwargs):
        kwargs.setdefault("timeout", 300)
        sandbox = Sandbox.create(*args, **kwargs)
        created.append(sandbox)
        return sandbox

    yield create_sandbox
    for sandbox in created:
        sandbox.kill()
