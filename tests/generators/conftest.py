"""The small world of the generator tests."""

from __future__ import annotations

import pytest
from generator_world import World, make_world


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()
