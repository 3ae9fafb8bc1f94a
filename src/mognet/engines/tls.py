"""TLS towards servers: certificates and host names are checked, unless a URL says loudly that they are not to be."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import NamedTuple

from mognet.exceptions import ImproperlyConfigured

INSECURE = "insecure_skip_verify"
"""The option of a URL that switches the checks off."""

_log = logging.getLogger(__name__)
_warned: set[str] = set()


class Tls(NamedTuple):
    """What a URL says of certificates."""

    cafile: str | None = None
    """Authorities that may have signed the server's certificate, and no others; None: those of the system."""
    certfile: str | None = None
    keyfile: str | None = None
    check_hostname: bool = True
    insecure: bool = False

    async def context(self, shown: str) -> ssl.SSLContext:
        """Read anew for each connection: files are replaced when certificates run out. Raises :class:`ImproperlyConfigured`."""
        if self.insecure and shown not in _warned:
            _warned.add(shown)
            _log.warning("%s: certificates are not checked (%s): anybody in between can read and change everything", shown, INSECURE)
        return await asyncio.to_thread(self._context)

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.cafile)
        except OSError as error:
            raise ImproperlyConfigured(f"the authorities in {self.cafile} cannot be read: {error}") from error
        if self.certfile is not None:
            try:
                context.load_cert_chain(self.certfile, self.keyfile)
            except OSError as error:
                raise ImproperlyConfigured(f"the certificate in {self.certfile} cannot be used: {error}") from error
        context.check_hostname = self.check_hostname and not self.insecure
        if self.insecure:
            context.verify_mode = ssl.CERT_NONE
        return context
