"""Background tasks for asyncio Python that survive crashes and tell you everything.

The names below are loaded when they are first used: a program that only mentions mognet does not wait for all of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mognet.app import App
    from mognet.backoff import Backoff
    from mognet.config import AppConfig
    from mognet.context import Context
    from mognet.events import Event
    from mognet.exceptions import Pause, Retry
    from mognet.middleware import Middleware
    from mognet.progress import Progress
    from mognet.registry import task
    from mognet.requests import Request
    from mognet.results import Result, ResultTree
    from mognet.scope import metadata
    from mognet.services import ClassService
    from mognet.state import State
    from mognet.states import ResultState

__all__ = [
    "App",
    "AppConfig",
    "Backoff",
    "ClassService",
    "Context",
    "Event",
    "Middleware",
    "Pause",
    "Progress",
    "Request",
    "Result",
    "ResultState",
    "ResultTree",
    "Retry",
    "State",
    "metadata",
    "task",
]

__version__ = "3.0.0.dev0"

_HOMES = {
    "App": "app",
    "AppConfig": "config",
    "Backoff": "backoff",
    "ClassService": "services",
    "Context": "context",
    "Event": "events",
    "Middleware": "middleware",
    "Pause": "exceptions",
    "Progress": "progress",
    "Request": "requests",
    "Result": "results",
    "ResultState": "states",
    "ResultTree": "results",
    "Retry": "exceptions",
    "State": "state",
    "metadata": "scope",
    "task": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
