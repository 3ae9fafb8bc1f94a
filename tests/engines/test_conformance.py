"""Every engine keeps every law."""

from __future__ import annotations

from mognet.testing.conformance import EngineConformance


class TestEngines(EngineConformance):
    """The shipped suite, on the engines of this package."""
