"""Gives a client's own connection to the process that answers it, together with the request.

The request goes to the site's listening socket like any other that is relayed, in an envelope that says so, and the
descriptor of the client's connection comes along (SCM_RIGHTS, unix(7)). It waits in the same queue, which outlives
the site's process; the process answers the client itself, and ends its connection with the answer. The worker is free
at once.

The risk: the process could keep the connection, read what the client sends next on it, and answer that. A front end may
send another visitor's request there even after it has sent ``Connection: close``: nginx with `keepalive` among its
upstreams believes the answer. So a connection is given only to a process that could take the workers' connections
anyway, one of the same user, unless the administrator declares that no front end reuses any (`is_allowed`); and only
if the client has announced it as its last (`downstream.Connection.said_last`), to protect honest clients.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from multisite.config.endpoint import Endpoint
from multisite.errors import ConnectFailed, RequestTooLarge
from multisite.proxy import headers, upstream
from multisite.proxy.downstream import fields
from multisite.proxy.wire import envelope

LARGEST = 65536  # bytes of a body that is handed over; a request with a larger one is relayed
MOST = 131072  # bytes of it all; a fresh socket takes them at once (net.core.wmem_default is 212992)

_NOSIGNAL = int(socket.MSG_NOSIGNAL)
_SOCKET, _RIGHTS = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS)


def is_allowed(wish: str, path: str) -> bool:
    """Tell whether processes of the sites may be given connections.

    Args:
        wish: yes, no, or auto: if they have the workers' own user, who is not root.
        path: of the site's socket, which belongs to the supervisor's user.

    Raises:
        OSError: there is no such socket.
    """
    if wish != "auto":
        return wish == "yes"
    own = os.geteuid()
    return own != 0 and os.stat(path).st_uid == own


def fits(body: bytes) -> bool:
    """Tell whether a request with this body can be handed over."""
    return len(body) <= LARGEST


def hand_over(environ: dict[str, Any], body: bytes, client: int, endpoint: Endpoint) -> None:
    """Hand a request over; if this raises, nothing has happened, and the request can be relayed.

    Args:
        environ: of the request.
        body: all of it, `LARGEST` bytes at most; CONTENT_LENGTH says how many.
        client: descriptor of the client's connection, which stays open here.
        endpoint: of the site.

    Raises:
        ConnectFailed: nobody listens there, or no descriptor can be passed now.
        BackendUnavailable: as many requests wait as may.
        RequestTooLarge: the request is larger than can be handed over.
    """
    apart = headers.said_apart(environ, fields(environ))
    data = envelope.encode(environ, False, envelope.WITH_CLIENT, apart) + body
    if len(data) > MOST:
        raise RequestTooLarge(f"a request of {len(data)} bytes cannot be handed over at once")
    site = upstream.connect(endpoint, 0.0)
    try:
        sent = site.sendmsg([data], [(_SOCKET, _RIGHTS, client.to_bytes(4, sys.byteorder))], _NOSIGNAL)
    except OSError as error:  # ETOOMANYREFS: too many descriptors are under way (RLIMIT_NOFILE)
        raise ConnectFailed(f"{endpoint}: {error.strerror}") from error
    finally:
        site.close()
    if sent < len(data):  # the runner drops what is not whole
        raise ConnectFailed(f"{endpoint}: a request of {len(data)} bytes was not taken as a whole")
