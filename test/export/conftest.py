"""Makes the helper modules next to this file importable; prints how far each export was off."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

FIGURES: dict[str, float] = {}
"""Greatest difference end to end, by test."""


@pytest.fixture
def note_difference(request):
    """Return what takes a figure, to be printed when all tests have run."""
    return lambda figure: FIGURES.__setitem__(request.node.name, figure)


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("greatest difference of an action from lerobot's own")
    for name, figure in FIGURES.items():
        terminalreporter.write_line(f"{figure:.1e}  {name}")
