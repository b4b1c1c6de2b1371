"""One trained adapter for all tests that only read it."""

import pytest
from adapter_toys import trained


@pytest.fixture(scope="package")
def saved():
    return trained()
