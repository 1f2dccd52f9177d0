"""Benchmarks take longer than tests may: peers have minutes."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.timeout(3000))
