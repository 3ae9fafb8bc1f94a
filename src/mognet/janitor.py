"""Upkeep: recovers the jobs of lost workers and deletes what has expired."""

from __future__ import annotations

import asyncio
import logging
import random

from mognet.engine import Engine
from mognet.exceptions import MognetError

_log = logging.getLogger(__name__)


async def keep_tidy(engine: Engine, *, interval: float) -> None:
    """Sweep every ``interval`` seconds or so, for ever. Any number of workers may do so at once."""
    while True:
        try:
            swept = await engine.sweep()
            while swept.more:
                swept = await engine.sweep()
            if swept.recovered:
                _log.warning("%d jobs of lost workers are in line again", swept.recovered)
        except MognetError as error:
            _log.warning("the sweep failed and will be tried again: %s", error)
        # Spread, so that many workers do not sweep in step.
        await asyncio.sleep(interval * random.uniform(0.8, 1.2))
