"""Sandboxes for the tests. Which gateway, and how it is reached, is in the environment that the clients read."""

import os
import time

import pytest

from e2b import Sandbox

TLS = os.environ["CATNAP_MODE"] == "tls"
"""Names are resolved and TLS is spoken. Otherwise everything goes to one plain address, by headers."""

NEWEST = hasattr(Sandbox, "create") and "idempotency_key" in Sandbox.create.__code__.co_varnames
"""The client is of the generation that speaks to `/v2/sandboxes`."""

needs_names = pytest.mark.skipif(not TLS, reason="needs a host name for each sandbox")
newest_only = pytest.mark.skipif(not NEWEST, reason="this client cannot ask for it")


def until(what, limit=60):
    """Waits for something that happens by itself."""
    end = time.monotonic() + limit
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def shared():
    """One that all tests use that do no harm to it."""
    sandbox = Sandbox.create(timeout=3000, envs={"COLOUR": "blue"}, metadata={"for": "all"})
    yield sandbox
    sandbox.kill()


@pytest.fixture
def create():
    """Makes sandboxes of the test's own."""
    made = []

    def make(*args, **kwargs):
        kwargs.setdefault("timeout", 300)
        sandbox = Sandbox.create(*args, **kwargs)
        made.append(sandbox)
        return sandbox

    yield make
    for sandbox in made:
        sandbox.kill()
