"""The gateway is named by the client's own environment variables."""

import pytest

from cubesandbox import Sandbox


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
        try:
            sandbox.kill()
        except Exception as error:
            assert "not found" in str(error).lower() or "doesn't exist" in str(error), error
