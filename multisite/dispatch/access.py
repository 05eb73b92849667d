"""Who may use a site: the addresses and the users that its section [access] names.

The check comes before everything else of the site, its files and its processes: a refused request goes no further. If
the check cannot be made, nobody is let in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from multisite.cluster.relaying import RELAYED
from multisite.config.model import Home, Site
from multisite.config.safefiles import Unusable
from multisite.config.trusted import Networks, TrustedProxies, client_of
from multisite.errors import AccessUnknown, Forbidden, Unauthorized
from multisite.logs import servicelog
from multisite.sites import htpasswd
from multisite.sites.htpasswd import PasswordFile

Environ = dict[str, Any]
Files = Callable[[Environ, Any], "Iterable[bytes] | None"]  # the answer of a site's files, None if they have none

#: what a certificate authority requests without a password (RFC 8555 section 8.3); a token has no dot and no slash
_CHALLENGE = re.compile(r"/\.well-known/acme-challenge/[A-Za-z0-9_-]+")
#: fields in which a front end, or a client, could name the user
USER = "HTTP_X_REMOTE_USER"
ASKED = "This site asks for a user name and a password"


class AccessCheck:
    """Lets requests of `site` through to its `files`, and then to its application.

    A request that another node has relayed was checked there, and has lost its password on the way.
    """

    def __init__(self, site: Site, home: Home, files: Files | None) -> None:
        self._site, self._files = site, files
        self._networks = Networks(site.allow) if site.allow else None
        self._proxies = TrustedProxies(home.service.trusted_proxies)
        self._passwords = PasswordFile(site.htpasswd) if site.htpasswd else None
        self._told: object = None

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes] | None:
        """Return the answer of the site's files, None if its application should answer.

        Raises:
            Forbidden: the client's address is not allowed.
            Unauthorized: no user has this name and password.
            AccessUnknown: the users are not known.
        """
        files = self._files
        if files and not environ.get("SCRIPT_NAME") and _CHALLENGE.fullmatch(environ.get("PATH_INFO", "")):
            body = files(environ, start_response)
            if body is not None:
                return body
        if RELAYED in environ:
            return files(environ, start_response) if files else None
        if self._networks:
            self._check_address(client_of(environ, self._proxies))
        if self._passwords:
            self._sign_in(self._passwords, environ)
        return files(environ, start_response) if files else None

    def _check_address(self, address: str) -> None:
        assert self._networks
        if not self._networks.contain(address):
            yours = f"yours is {address}" if address else "yours is not known"
            raise Forbidden(f"This site answers only certain addresses, and {yours}")

    def _sign_in(self, passwords: PasswordFile, environ: Environ) -> None:
        """Give the site the name of its user, but not the password, as Apache does."""
        authorization = str(environ.get("HTTP_AUTHORIZATION", ""))
        self._look(passwords)
        user = passwords.user(authorization) if authorization else None
        if user is None:
            raise Unauthorized(ASKED, self._site.name)
        del environ["HTTP_AUTHORIZATION"]
        # PEP 3333 represents text this way: each character is a byte.
        environ["REMOTE_USER"] = environ[USER] = user.encode("utf-8", "surrogateescape").decode("latin-1")
        environ["AUTH_TYPE"] = "Basic"

    def _look(self, passwords: PasswordFile) -> None:
        try:
            if passwords.look():
                self._told = None
                for line, reason, remedy in passwords.faults:
                    servicelog.site_logger(self._site.name).error(
                        "MS236 %s: %s: %s; %s", passwords.path, line, reason, remedy
                    )
        except Unusable as error:
            if self._told != error.reason:
                self._told = error.reason
                problem = htpasswd.problem_of(self._site, error)
                servicelog.site_logger(self._site.name).error("%s all visitors are refused: %s", problem.id, problem)
            raise AccessUnknown("The server cannot read the file of its users") from None
