"""Where Mognet 2.0 had :func:`create_app_fixture`."""

from __future__ import annotations

from mognet.testing.fixtures import create_app_fixture

__all__ = ["create_app_fixture"]
