"""Whether the file is quick enough to be written by the event loop's own thread."""

from __future__ import annotations

from time import monotonic

QUICK = 0.001
"""Seconds that a commit takes where the disk is quick."""

SLOW = 0.004
"""Seconds of the event loop's time that are many for a transaction, whatever it did."""

SHARE = 0.2
"""Of the event loop's time that may be lost to what is slow."""

SAVED = 0.02
"""Seconds of it that may be lost at once, when nothing was slow for a while: one commit among hundreds is, on any disk."""

VERY_SLOW = 0.02
"""Seconds that call for a long rest."""

LONG_REST = 1.0
"""Seconds for which the writer's thread does the writing after that."""


class Pace:
    """Watches commits. A thread's own can be quicker than they look (it waits for its turn), not slower: a quick one is proof."""

    def __init__(self, *, inline: bool) -> None:
        self.inline = inline
        self._proved = False
        self._rest_until = 0.0
        self._left = SAVED
        self._counted = monotonic()

    def is_quick(self) -> bool:
        """Whether the next transaction may be tried on the event loop's thread."""
        return self._proved and monotonic() >= self._rest_until

    def seen_in_thread(self, commit: float) -> None:
        """A commit of the writer's thread took so many seconds."""
        if self.inline and commit < QUICK:
            self._proved = True

    def seen_inline(self, commit: float, whole: float) -> None:
        """A commit on the event loop's thread took so many seconds, and with all before it so many."""
        lost = whole if whole > SLOW else commit if commit > QUICK else 0.0
        if not lost:
            return
        now = monotonic()
        self._left = min(SAVED, self._left + SHARE * (now - self._counted)) - lost
        self._counted = now
        if whole > VERY_SLOW:
            self._rest(LONG_REST)
        elif self._left < 0:
            self._rest(-self._left / SHARE)

    def _rest(self, seconds: float) -> None:
        self._proved = False
        self._rest_until = monotonic() + seconds
