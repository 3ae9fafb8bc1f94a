"""Upkeep: recovers the jobs of lost workers and deletes what has expired."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from mognet.engine import Engine
from mognet.exceptions import MognetError

_log = logging.getLogger(__name__)


async def keep_tidy(engine: Engine, *, interval: float, swept: Callable[[], None] = lambda: None) -> None:
    """Sweep every ``interval`` seconds or so, for ever, calling ``swept`` after each. Any number of workers may do so at once."""
    while True:
        try:
            recovered, more = 0, True
            while more:
                sweep = await engine.sweep()
                recovered, more = recovered + sweep.recovered, sweep.more
            swept()
            if recovered:
                _log.warning("%d jobs of lost workers are in line again", recovered)
        except MognetError as error:
            _log.warning("the sweep failed and will be tried again: %s", error)
        except Exception:  # without sweeps the jobs of lost workers would never run again
            _log.exception("the sweep failed and will be tried again")
        # Spread, so that many workers do not sweep in step.
        await asyncio.sleep(interval * random.uniform(0.8, 1.2))
