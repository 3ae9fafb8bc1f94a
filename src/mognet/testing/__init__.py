"""What helps to test with mognet: fixtures for applications, and the proof that an engine keeps the laws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mognet.testing.fixtures import create_app_fixture

__all__ = ["create_app_fixture"]


def __getattr__(name: str) -> Any:
    # When asked for, since the conformance suite needs no app, and pytest is not installed everywhere.
    if name == "create_app_fixture":
        from mognet.testing.fixtures import create_app_fixture

        return create_app_fixture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
