"""The steps of a schema, there and back: ``NNNN_name.sql``, and ``NNNN_name.down.sql`` for all but the first."""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

from mognet.exceptions import ImproperlyConfigured


class NewerSchema(ImproperlyConfigured):
    """A newer mognet has been here: this one keeps its hands off."""


class Step(NamedTuple):
    """A script that brings a schema to another version."""

    script: str
    version: int
    """The version that it has then."""


def newest(package: str) -> int:
    """The version that this mognet works with."""
    return len(_scripts(package, down=False))


def steps(package: str, what: str, found: int, wanted: int | None = None) -> list[Step]:
    """What brings ``what`` from one version to another, the newest by default.

    Raises :class:`NewerSchema` if it is further than this mognet knows, and :class:`ImproperlyConfigured` if there is no such version or
    no way back.
    """
    ups, downs = _scripts(package, down=False), _scripts(package, down=True)
    known = len(ups)
    if found > known:
        raise NewerSchema(
            f"{what} was written by a newer mognet: it has version {found} of its schema, and this one knows none later than {known}. "
            f"Upgrade mognet here, or bring it back with the newer one: mognet store migrate --to {known}"
        )
    wanted = known if wanted is None else wanted
    if not 1 <= wanted <= known:
        raise ImproperlyConfigured(f"there is no version {wanted} of the schema: this mognet knows 1 to {known}")
    missing = [number for number in range(wanted + 1, found + 1) if number not in downs]
    if missing:
        raise ImproperlyConfigured(f"there is no way back from version {missing[-1]} of the schema")
    there = [Step(ups[number], number) for number in range(found + 1, wanted + 1)]
    back = [Step(downs[number], number - 1) for number in range(found, wanted, -1)]
    return there or back


def _scripts(package: str, *, down: bool) -> dict[int, str]:
    folder = resources.files(package).joinpath("migrations")
    files = [file for file in folder.iterdir() if file.name.endswith(".sql") and file.name.endswith(".down.sql") == down]
    return {int(file.name[:4]): file.read_text("utf-8") for file in files}
