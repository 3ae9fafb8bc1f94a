"""What a postgresql:// URL says: what is for the server's own client library, and what is for mognet."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from mognet.exceptions import ImproperlyConfigured
from mognet.redaction import redact_url

DEFAULT_SCHEMA = "mognet"

_OWN = ("schema", "pooler", "pool_size")
_TRUE = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class Settings(NamedTuple):
    """A URL, taken apart."""

    url: str
    """What the client library understands."""
    schema: str = DEFAULT_SCHEMA
    pooler: bool | None = None
    """Whether a pooler in transaction mode stands between; None: find out."""
    pool_size: int = 4
    """Connections for operations; one more rings and listens."""

    @property
    def shown(self) -> str:
        """The URL without its secrets."""
        return redact_url(self.url)


def parse_url(url: str) -> Settings:
    """Settings of ``postgresql://user:password@host1,host2/database?schema=…&pooler=1&pool_size=8&sslmode=verify-full…``."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("postgresql", "postgres"):
        raise ImproperlyConfigured(f"{redact_url(url)!r} is no URL of PostgreSQL: it should start with postgresql://")
    address, _, query = rest.partition("?")
    given = parse_qsl(query, keep_blank_values=True)
    own = {key: value for key, value in given if key in _OWN}
    theirs = urlencode([(key, value) for key, value in given if key not in _OWN], quote_via=quote)
    plain = f"postgresql://{address}{'?' if theirs else ''}{theirs}"
    try:
        conninfo_to_dict(plain)
    except ProgrammingError as error:
        what = str(error).strip().partition('"')[0].rstrip(": ")
        raise ImproperlyConfigured(f"the URL {redact_url(url)!r} cannot be read ({what}); quote special characters as %40") from None
    schema = own.get("schema", DEFAULT_SCHEMA)
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,50}", schema) or schema.startswith("pg_"):
        raise ImproperlyConfigured(f"schema={schema!r} will not do: use small letters, digits and _, at most 50")
    return Settings(plain, schema, _pooler(own.get("pooler")), _pool_size(own.get("pool_size", "4")))


def _pooler(text: str | None) -> bool | None:
    if text is None:
        return None
    if text.lower() not in _TRUE:
        raise ImproperlyConfigured(f"pooler={text!r} is neither 1 nor 0")
    return _TRUE[text.lower()]


def _pool_size(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text) or int(text) == 0:
        raise ImproperlyConfigured(f"pool_size={text!r} is no number from 1 to 999")
    return int(text)
