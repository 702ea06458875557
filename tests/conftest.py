"""What all tests share: the option that makes large counts full ones."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="large counts (APDUs, insertions, conversations) as tools/full runs them",
    )


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Take the full count instead of CI's small one."""
    return bool(request.config.getoption("--full"))
