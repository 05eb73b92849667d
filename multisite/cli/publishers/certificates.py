"""Certificates of many domains in one folder, each handed out to who asks for its domain (SNI, RFC 6066 section 3).

``DOMAIN/fullchain.pem`` with ``DOMAIN/privkey.pem`` beside it, as certbot and its kin leave them, or ``DOMAIN.pem``
with both in it. A domain ``*.example.org`` is for each host one label deeper. A certificate that is renewed is taken
with the next connection.
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

DEFAULT = "default"  # the domain of what anybody else is shown

_log = logging.getLogger("multisite.certificates")


@dataclass(frozen=True)
class CertificateFiles:
    """A certificate, with those that vouch for it, and its key; paths of files."""

    chain: str
    key: str

    @property
    def stamp(self) -> tuple[int, ...]:
        """What changes when one of the files does.

        Raises:
            OSError: one is not there.
        """
        found = [os.stat(path) for path in (self.chain, self.key)]
        return tuple(number for status in found for number in (status.st_mtime_ns, status.st_ino, status.st_size))


class Certificates:
    """Those of a folder.

    Args:
        folder: where they are; files that come later count, too.
        protocols: what is offered by ALPN (RFC 7301), the best first; nothing for HTTP/1.1 alone.
    """

    def __init__(self, folder: str, protocols: Iterable[str] = ()) -> None:
        self.folder = folder
        self._protocols = list(protocols)
        self._contexts: dict[CertificateFiles, tuple[tuple[int, ...], ssl.SSLContext]] = {}

    def find(self, host: str) -> CertificateFiles | None:
        """Return what is there for a normalised host: under its own name, or its parent's with ``*.``."""
        parent = host.partition(".")[2]
        return self._pair(host) or (self._pair(f"*.{parent}") if parent else None)

    def default(self) -> CertificateFiles:
        """Return what a client gets that asks for no domain, or for one without a certificate.

        Raises:
            ValueError: there is none at all; the message says how they are to be named.
        """
        named = (self._pair(name.removesuffix(".pem")) for name in self._names())
        found = self._pair(DEFAULT) or next(filter(None, named), None)
        if not found:
            raise ValueError("there is no certificate, DOMAIN/fullchain.pem with DOMAIN/privkey.pem or DOMAIN.pem")
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
        """Return the context of a certificate, made anew if it was renewed.

        Raises:
            OSError, ssl.SSLError: it cannot be used.
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
        """Give a client that says which domain it wants the certificate of that."""
        try:
            pair = self.find(normalise(name)) if name else None
            if pair:
                connection.context = self.context(pair)
        except BadHost:
            pass  # the default one then tells it that it is wrong here
        except OSError as error:  # ssl.SSLError is one
            _log.error("the certificate for %s cannot be used: %s", name, error)

    def for_gunicorn(self, _settings: Any, _usual: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """Return the context of a new connection: gunicorn's hook ``ssl_context``."""
        pair = self.default()
        try:
            return self.context(pair)
        except OSError as error:
            known = self._contexts.get(pair)
            if not known:
                raise
            _log.error("the certificate %s cannot be used, so the last one goes on: %s", pair.chain, error)
            return known[1]
