"""How busy the processors are: what has to be done in a time takes longer where others want them, too."""

from __future__ import annotations

from pathlib import Path


class Processor:
    """How much longer things take since then because other processes want the processors, too: seen by the main thread of this one."""

    def __init__(self) -> None:
        self._began = self._times()

    @staticmethod
    def _times() -> tuple[int, int]:
        try:  # nanoseconds that it ran, and that it could have run
            ran, waited, _ = Path("/proc/self/schedstat").read_text().split()
        except OSError:
            return 0, 0
        return int(ran), int(waited)

    def slowness(self) -> float:
        """1 if nobody waits, 2 if it waited for as long as it ran. (Who hardly ran cannot tell.)"""
        ran, waited = (now - then for now, then in zip(self._times(), self._began, strict=True))
        return 1 + waited / max(10_000_000, ran)
