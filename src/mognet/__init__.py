"""Background tasks for asyncio Python that survive crashes and tell you everything."""

from mognet.app import App
from mognet.backoff import Backoff
from mognet.config import AppConfig
from mognet.context import Context
from mognet.exceptions import Pause, Retry
from mognet.middleware import Middleware
from mognet.registry import task
from mognet.requests import Request
from mognet.results import Result, ResultTree
from mognet.services import ClassService
from mognet.state import State
from mognet.states import ResultState

__all__ = [
    "App",
    "AppConfig",
    "Backoff",
    "ClassService",
    "Context",
    "Middleware",
    "Pause",
    "Request",
    "Result",
    "ResultState",
    "ResultTree",
    "Retry",
    "State",
    "task",
]

__version__ = "3.0.0.dev0"
