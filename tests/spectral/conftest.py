"""The matrix of most tests."""

import pytest
from small_operators import dense_operator


@pytest.fixture(scope="session")
def matrix():
    return dense_operator()
