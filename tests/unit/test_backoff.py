"""Back-off stays within its bounds."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mognet import Backoff, claiming, settling
from mognet.backoff import worth_saying


@given(
    st.builds(Backoff, base=st.floats(0, 100), factor=st.floats(1, 10), cap=st.floats(0, 1000), jitter=st.booleans()),
    st.integers(1, 10_000),
)
def test_a_delay_is_never_longer_than_its_ceiling_and_the_cap(backoff: Backoff, failures: int) -> None:
    ceiling = backoff.ceiling(failures)
    assert 0 <= backoff.delay(failures) <= ceiling <= backoff.cap
    assert ceiling <= backoff.ceiling(failures + 1)


def test_it_grows_by_its_factor_up_to_the_cap() -> None:
    backoff = Backoff(base=1, factor=3, cap=20, jitter=False)
    assert [backoff.delay(n) for n in range(1, 6)] == [1, 3, 9, 20, 20]


def test_jitter_uses_the_whole_range() -> None:
    delays = [Backoff(base=8, jitter=True).delay(1) for _ in range(500)]
    assert min(delays) < 1 and max(delays) > 7


def test_times_may_be_timedeltas() -> None:
    assert Backoff(base=timedelta(seconds=2), cap=timedelta(minutes=1)) == Backoff(base=2.0, cap=60.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"base": -1}, {"factor": 0.5}, {"cap": -1}, {"base": float("nan")}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Backoff"):
        Backoff(**wrong)  # type: ignore[arg-type]


def test_a_log_tells_of_the_first_failures_and_then_of_ever_fewer() -> None:
    assert [number for number in range(1, 200) if worth_saying(number)] == [1, 2, 4, 8, 16, 32, 64, 128, 192]


def test_who_asks_an_engine_asks_again_within_a_second() -> None:
    """However long it was away: that its server is not stormed is its own business."""
    for backoff in (claiming.RECONNECT, settling._AGAIN):
        assert backoff.ceiling(1000) <= 1
