"""Every engine does what the model does, whatever the sequence of operations."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from mognet.testing.machine import prove

from .conftest import HARNESSES


@pytest.mark.timeout(600)  # to find the shortest sequence that fails may take minutes
@pytest.mark.parametrize("name", HARNESSES)
def test_engine_against_the_model(name: str, tmp_path: Path) -> None:
    numbers = itertools.count()

    def directory() -> Path:
        path = tmp_path / str(next(numbers))
        path.mkdir()
        return path

    prove(lambda: HARNESSES[name](directory()))
