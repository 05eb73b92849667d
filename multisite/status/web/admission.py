"""Who may see the status pages, and who may press a button.

A peer of this machine may see them. A front end is such a peer as well, and speaks for anybody: whoever comes through
one has to know the token. So has, where sites have users of their own, a process that is none of the administrator's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from multisite.config.trusted import TrustedProxies, client_of
from multisite.errors.pages import is_loopback
from multisite.status.web.attempts import Attempts

Environ = dict[str, Any]
COOKIE = "multisite_status"
LASTS = 7 * 86400.0  # seconds for which a browser stays signed in
FORM_LASTS = 12 * 3600.0  # seconds for which a form may be sent


@dataclass(frozen=True)
class Visitor:
    """Who has been let in.

    Attributes:
        name: for the log: an address, and how it was let in.
        by_header: the token came in a header, which no other site can make a browser send.
    """

    name: str
    by_header: bool = False


class Admission:
    """Lets visitors in.

    Args:
        token: [service] status_token, "" for none.
        key: secret of the home, for what is signed without a token.
        proxies: whose X-Forwarded-For is believed.
        is_ours: tells whether a peer on this machine is the administrator's, and not a site's.
        attempts: counts wrong tokens.
    """

    def __init__(
        self,
        token: str,
        key: str,
        proxies: TrustedProxies,
        is_ours: Callable[[Environ], bool] = lambda environ: True,
        attempts: Attempts | None = None,
    ) -> None:
        self._token = token
        self._secret = hashlib.sha256(f"{token}\n{key}".encode("utf-8", "surrogateescape")).digest()
        self._proxies, self._is_ours = proxies, is_ours
        self._attempts = attempts or Attempts()

    @property
    def has_token(self) -> bool:
        """Whether anybody but a peer of this machine can be let in."""
        return bool(self._token)

    def visitor(self, environ: Environ, now: float, forwarded: bool) -> Visitor | None:
        """Return who asks, None for nobody who may.

        Args:
            environ: of the request.
            now: Unix seconds.
            forwarded: a front end was named in it, whether or not that is believed.

        Raises:
            TooManyAttempts: it shows a token, after too many wrong ones.
        """
        address = client_of(environ, self._proxies)
        scheme, _, sent = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        if scheme.lower() == "bearer" and self.is_token(sent.strip(), environ, now):
            return Visitor(f"{address or 'a local process'}, by its token", by_header=True)
        if self._token and self.is_signed("visit", self._cookie(environ), now):
            return Visitor(f"{address or 'a local process'}, signed in")
        peer = str(environ.get("REMOTE_ADDR", ""))
        if not forwarded and (not peer or is_loopback(peer)) and self._is_ours(environ):
            return Visitor(f"{peer or 'a unix socket'}, on this machine")
        return None

    def is_token(self, sent: str, environ: Environ, now: float) -> bool:
        """Tell whether a text is the token, in a time that tells nothing of it; one that is not is counted.

        Raises:
            TooManyAttempts: too many wrong ones have come from this client.
        """
        if not self._token:
            return False
        is_right = hmac.compare_digest(sent.encode("utf-8", "replace"), self._token.encode())
        return self._attempts.judge(client_of(environ, self._proxies), is_right, now)

    def signed(self, purpose: str, until: float) -> str:
        """Return a text that only this home can have made, good until a time (Unix seconds)."""
        stamp = str(int(until))
        return f"{stamp}.{hmac.new(self._secret, f'{purpose}.{stamp}'.encode(), 'sha256').hexdigest()}"

    def is_signed(self, purpose: str, sent: str, now: float) -> bool:
        """Tell whether a text was made by `signed` for a purpose, and is still good."""
        stamp, _, _ = sent.partition(".")
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
            return False
        expected = self.signed(purpose, int(stamp))
        return now < int(stamp) and hmac.compare_digest(sent.encode("utf-8", "replace"), expected.encode())

    def cookie(self, now: float, is_secure: bool) -> str:
        """Return the value of the Set-Cookie field of somebody who has shown the token."""
        value = self.signed("visit", now + LASTS)
        secure = "; Secure" if is_secure else ""
        return f"{COOKIE}={value}; Path=/; Max-Age={int(LASTS)}; HttpOnly; SameSite=Strict{secure}"

    def form_token(self, now: float) -> str:
        """Return what a form of ours contains, and no other site's."""
        return self.signed("form", now + FORM_LASTS)

    def may_act(self, environ: Environ, visitor: Visitor, form_token: str, now: float) -> bool:
        """Tell whether a POST comes from a page of ours, or from a program that knows the token.

        A browser says so in Sec-Fetch-Site (W3C Fetch Metadata), but on plain HTTP only to this machine; without it the
        form has to contain what we put there.
        """
        site = environ.get("HTTP_SEC_FETCH_SITE")
        if visitor.by_header and site in (None, "same-origin"):
            return True
        if site is not None:
            return bool(site == "same-origin")
        return self.is_signed("form", form_token, now)

    @staticmethod
    def _cookie(environ: Environ) -> str:
        try:
            found = SimpleCookie(str(environ.get("HTTP_COOKIE", ""))[:8192]).get(COOKIE)
        except CookieError:
            return ""
        return found.value if found else ""
