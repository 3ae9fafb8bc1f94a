"""A worker without the command line, and so without its signal handlers."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from system.processes import jobs

signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(jobs.app.start())
