"""Upkeep: recovers the jobs of lost workers and deletes what has expired."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from uuid import UUID

from mognet.engine import Engine
from mognet.exceptions import MognetError
from mognet.records import Token

IN_TIME = 0.5
"""Seconds in which an engine that is well takes a write."""

NOBODY = Token(UUID(int=0), 0, "")
"""A token that holds no job. (Of no token at all an engine asks nothing.)"""

_log = logging.getLogger(__name__)


async def keep_tidy(engine: Engine, *, interval: float, swept: Callable[[], None] = lambda: None) -> None:
    """Sweep every ``interval`` seconds or so, for ever, calling ``swept`` after each. Any number of workers may do so at once.

    Not at once after the engine was away: nobody could renew a lease meanwhile, so that the jobs of the living look lost, too.
    """
    skipped = False
    while True:
        try:
            # Only once, for an engine that is always slow must be swept, too.
            skipped = not skipped and not await _takes_writes(engine)
            if not skipped:
                recovered, more = 0, True
                while more:
                    sweep = await engine.sweep()
                    recovered, more = recovered + sweep.recovered, sweep.more
                if recovered:
                    jobs = "1 job of a lost worker is" if recovered == 1 else f"{recovered} jobs of lost workers are"
                    _log.warning("%s in line again", jobs)
            swept()
        except MognetError as error:
            _log.warning("the sweep failed and will be tried again: %s", error)
        except Exception:  # without sweeps the jobs of lost workers would never run again
            _log.exception("the sweep failed and will be tried again")
        # Spread, so that many workers do not sweep in step.
        await asyncio.sleep(interval * random.uniform(0.8, 1.2))


async def _takes_writes(engine: Engine) -> bool:
    began = time.monotonic()
    await engine.extend([NOBODY], 0.0)
    return time.monotonic() - began < IN_TIME
