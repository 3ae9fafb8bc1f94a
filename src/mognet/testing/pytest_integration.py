""":func:`create_app_fixture`, for code that imports it from here."""

from __future__ import annotations

from mognet.testing.fixtures import create_app_fixture

__all__ = ["create_app_fixture"]
