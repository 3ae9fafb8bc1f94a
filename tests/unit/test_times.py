"""Durations, and what is none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mognet.times import in_seconds


def test_durations() -> None:
    assert [in_seconds(each, "delay") for each in (0, 1, 0.5, timedelta(minutes=1))] == [0, 1, 0.5, 60]
    for much in (-1, float("nan"), float("inf"), timedelta(days=40_000), timedelta(seconds=-1)):
        with pytest.raises(ValueError, match="delay must be from 0 seconds to 100 years"):
            in_seconds(much, "delay")


@pytest.mark.parametrize("given", ["1h", None, True, [1]])
def test_what_is_no_duration_is_called_that(given: Any) -> None:
    with pytest.raises(TypeError, match="delay must be a timedelta or a number of seconds, not"):
        in_seconds(given, "delay")
