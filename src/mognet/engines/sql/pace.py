"""Whether the file is quick enough to be written by the event loop's own thread."""

from __future__ import annotations

from time import monotonic

QUICK = 0.001
"""Seconds that a commit takes where the disk is quick."""

SLOW = 0.004
"""Seconds of the event loop's time that are too many."""

REST = 4
"""How many times as long as a slow transaction the writer's thread does the writing after it: a fifth of the time is lost at worst."""

SHORT_REST = 0.1
"""Seconds for which it does so after several commits in a row that were not quick."""

VERY_SLOW = 0.02
"""Seconds that call for a long rest."""

LONG_REST = 1.0
"""Seconds for which it does so after that."""

_WEIGHT = 0.2
"""Of the newest commit in the estimate."""


class Pace:
    """Watches commits. A thread's own can be quicker than they look (it waits for its turn), not slower: a quick one is proof."""

    def __init__(self, *, inline: bool) -> None:
        self.inline = inline
        self._proved = False
        self._rest_until = 0.0
        self._estimate = 0.0

    def is_quick(self) -> bool:
        """Whether the next transaction may be tried on the event loop's thread."""
        return self._proved and monotonic() >= self._rest_until

    def seen_in_thread(self, commit: float) -> None:
        """A commit of the writer's thread took so many seconds."""
        if self.inline and commit < QUICK:
            self._proved = True

    def seen_inline(self, commit: float, whole: float) -> None:
        """A commit on the event loop's thread took so many seconds, and with all before it so many."""
        self._estimate += (min(commit, 2 * QUICK) - self._estimate) * _WEIGHT
        if whole > SLOW:
            self._rest(REST * whole if whole < VERY_SLOW else LONG_REST)
        elif self._estimate > QUICK:
            self._rest(SHORT_REST)

    def _rest(self, seconds: float) -> None:
        self._proved, self._estimate = False, 0.0
        self._rest_until = monotonic() + seconds
