"""Fixtures. The client reads the address of the gateway from the environment."""

import pytest

from cubesandbox import Sandbox


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
        try:
            sandbox.kill()
        except Exception as error:
            assert "not found" in str(error).lower() or "doesn't exist" in str(error), error
