"""Certificates for private servers: an authority, what it has signed, and another authority."""

from __future__ import annotations

import subprocess
from pathlib import Path

from servers import find_binary

NAMES = {"server": "IP:127.0.0.1", "client": "DNS:client"}
"""For which names each of them is good: the server's not for localhost, which is the same place."""


class Certificates:
    """Files of two authorities, ``ca`` and ``other``, and of ``server`` and ``client``, which the first has signed for ``user``."""

    def __init__(self, folder: Path, user: str = "mognet") -> None:
        self.folder = folder
        self.ca, self.other = folder / "ca.crt", folder / "other.crt"
        for authority in ("ca", "other"):
            self._openssl("-x509", "-days", "2", "-out", f"{authority}.crt", "-subj", f"/CN={authority}", key=authority)
        for name, good_for in NAMES.items():
            signed = ("-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2", "-out", f"{name}.crt")
            self._openssl(
                *signed,
                "-subj",
                f"/CN={user}",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                f"subjectAltName={good_for}",
                key=name,
            )

    def _openssl(self, *options: str, key: str) -> None:
        new = [
            find_binary("openssl"),
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            f"{key}.key",
        ]
        subprocess.run([*new, *options], cwd=self.folder, check=True, capture_output=True)
        (self.folder / f"{key}.key").chmod(0o600)

    def crt(self, name: str) -> Path:
        """A certificate."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Its key."""
        return self.folder / f"{name}.key"
