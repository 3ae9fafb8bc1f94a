"""Growing, jittered delays."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from mognet.exceptions import ServerStarting
from mognet.times import LONGEST

_LONGEST = LONGEST.total_seconds()


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before attempt 2, 3, …: between nothing and ``base * factor ** n``, at most ``cap`` seconds.

    "Full jitter" (Marc Brooker, "Exponential Backoff And Jitter", 2015): drawing from the whole range spreads a crowd that
    failed together better than adding a little noise does. ``jitter=False`` waits the full time.
    """

    base: float = 1.0
    factor: float = 2.0
    cap: float = 300.0
    jitter: bool = True

    def __post_init__(self) -> None:
        for name in ("base", "cap"):
            value = getattr(self, name)
            if isinstance(value, timedelta):
                object.__setattr__(self, name, value.total_seconds())
        if not (self.base >= 0 and self.cap >= 0 and self.factor >= 1):
            raise ValueError(f"a Backoff needs base >= 0, factor >= 1 and cap >= 0, not {self}")

    def ceiling(self, failures: int) -> float:
        """The longest wait, in seconds, after so many failures in a row (1 is the first)."""
        try:
            return float(min(self.cap, _LONGEST, self.base * self.factor ** max(0, failures - 1)))
        except OverflowError:
            return min(self.cap, _LONGEST)

    def delay(self, failures: int) -> float:
        """The wait in seconds after so many failures in a row."""
        ceiling = self.ceiling(failures)
        return random.uniform(0, ceiling) if self.jitter else ceiling


SOON = Backoff(base=1.5, cap=1.5)
"""Between attempts at a server that says that it is starting: to say so costs it little."""


def pause_after(error: Exception, failures: int, backoff: Backoff) -> float:
    """The wait in seconds before the next attempt to connect, after so many failures in a row, the last of them this one."""
    return SOON.delay(1) if isinstance(error, ServerStarting) else backoff.delay(failures)


def worth_saying(failures: int) -> bool:
    """Whether a log should tell of this failure in a row: the first few, and then ever fewer of them."""
    return failures & (failures - 1) == 0 or failures % 64 == 0
