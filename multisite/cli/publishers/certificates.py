"""Certificates for many domains in one folder; each client gets the one for its domain (SNI, RFC 6066 section 3).

``DOMAIN/fullchain.pem`` with ``DOMAIN/privkey.pem`` beside it, as certbot and similar programs write them, or
``DOMAIN.pem`` with both in it. The domain ``*.example.org`` covers each host one label deeper. A renewed certificate
takes effect with the next connection.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from multisite.cli.publishers.plainhttp import TLSConnection
from multisite.config.domains import normalise
from multisite.errors import BadHost

DEFAULT = "default"  # the domain of the certificate for all other clients

_log = logging.getLogger("multisite.certificates")


@dataclass(frozen=True)
class CertificateFiles:
    """Paths of a certificate with its chain, and of its key."""

    chain: str
    key: str

    @property
    def stamp(self) -> tuple[int, ...]:
        """A value that changes if one of the files changes.

        Raises:
            OSError: a file is missing.
        """
        found = [os.stat(path) for path in (self.chain, self.key)]
        return tuple(number for status in found for number in (status.st_mtime_ns, status.st_ino, status.st_size))


class Certificates:
    """The certificates in a folder.

    Args:
        folder: its path; files that are added later count, too.
        protocols: offered by ALPN (RFC 7301), the best first; empty for HTTP/1.1 alone.
    """

    def __init__(self, folder: str, protocols: Iterable[str] = ()) -> None:
        self.folder = folder
        self._protocols = list(protocols)
        self._contexts: dict[CertificateFiles, tuple[tuple[int, ...], ssl.SSLContext]] = {}

    def find(self, host: str) -> CertificateFiles | None:
        """Return the files for a normalised host: under its own name, or its parent's with ``*.``."""
        parent = host.partition(".")[2]
        return self._pair(host) or (self._pair(f"*.{parent}") if parent else None)

    def default(self) -> CertificateFiles:
        """Return the certificate for a client that names no domain, or one without a certificate.

        Raises:
            ValueError: the folder has none; the message explains how to name the files.
        """
        named = (self._pair(name.removesuffix(".pem")) for name in self._names())
        found = self._pair(DEFAULT) or next(filter(None, named), None)
        if not found:
            raise ValueError("no certificate found (DOMAIN/fullchain.pem with DOMAIN/privkey.pem, or DOMAIN.pem)")
        return found

    def _names(self) -> Iterator[str]:
        try:
            yield from sorted(os.listdir(self.folder))
        except OSError as error:
            raise ValueError(str(error.strerror).lower()) from None

    def _pair(self, domain: str) -> CertificateFiles | None:
        place = os.path.join(self.folder, domain)
        single = f"{place}.pem"
        for pair in (
            CertificateFiles(f"{place}/fullchain.pem", f"{place}/privkey.pem"),
            CertificateFiles(single, single),
        ):
            if os.path.isfile(pair.chain) and os.path.isfile(pair.key):
                return pair
        return None

    def context(self, pair: CertificateFiles) -> ssl.SSLContext:
        """Return the context of a certificate, and make it again after a renewal.

        Raises:
            OSError, ssl.SSLError: the certificate is unusable.
        """
        stamp = pair.stamp
        known = self._contexts.get(pair)
        if known and known[0] == stamp:
            return known[1]
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.chain, pair.key)
        if self._protocols:
            context.set_alpn_protocols(self._protocols)
        context.sslsocket_class = TLSConnection
        context.sni_callback = self._choose
        self._contexts[pair] = (stamp, context)
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Switch to the certificate of the domain that the client names."""
        try:
            pair = self.find(normalise(name)) if name else None
            if pair:
                connection.context = self.context(pair)
        except BadHost:
            pass  # with the default certificate, the client sees that the name is wrong
        except OSError as error:  # ssl.SSLError is one
            _log.error("MS916 cannot use the certificate for %s: %s", name, error)

    def for_gunicorn(self, _settings: Any, _usual: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """Return the context of a new connection: gunicorn's hook ``ssl_context``."""
        pair = self.default()
        try:
            return self.context(pair)
        except OSError as error:
            known = self._contexts.get(pair)
            if not known:
                raise
            _log.error("MS917 cannot use the certificate %s, so the previous one stays in use: %s", pair.chain, error)
            return known[1]
