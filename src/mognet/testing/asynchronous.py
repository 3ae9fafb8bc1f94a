"""Async fixtures, for whichever pytest plugin runs async tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def async_fixture(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``pytest.fixture`` for async functions: pytest-asyncio's where that is installed; else whichever plugin there is takes it."""
    decorator: Callable[[Callable[..., Any]], Any]
    try:
        import pytest_asyncio
    except ImportError:
        decorator = pytest.fixture(**options)
    else:
        decorator = pytest_asyncio.fixture(**options)  # its strict mode wants its own mark
    return decorator
