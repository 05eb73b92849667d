"""Giving a client's own connection to the process that answers it, together with the request.

The request goes to the site's listening socket like any other that is relayed, in an envelope that says so, and the
descriptor of the client's connection comes along (SCM_RIGHTS, unix(7)). It waits in the same queue, which outlives
the site's process; the process answers the client itself, and ends its connection with the answer. The worker is free
at once.

Only for a connection that carries no other request afterwards, whatever the site's process does with it: on one that a
front end uses again, a hostile site would be sent the next visitor's request. The caller knows whether it is such a
one, lets go of the connection afterwards, and tells the server that the request is over.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from typing import Any

from multisite import upstream
from multisite.endpoint import Endpoint
from multisite.errors import ConnectFailed
from multisite.wire import envelope

LARGEST = 65536  # bytes of a body that comes along; a larger one has to be relayed


def fits(body: bytes) -> bool:
    """Tell whether a request with this body can be handed over."""
    return len(body) <= LARGEST


def hand_over(environ: Mapping[str, Any], body: bytes, client: int, endpoint: Endpoint) -> None:
    """Hand a request over; nothing has happened where this raises, so that it can be relayed.

    Args:
        environ: of the request.
        body: all of it, `LARGEST` bytes at most; CONTENT_LENGTH says how many.
        client: descriptor of the client's connection, which stays open here.
        endpoint: of the site.

    Raises:
        ConnectFailed: nobody listens there, or no descriptor can be passed now.
        BackendUnavailable: as many requests wait as may.
        RequestTooLarge: the variables are larger than the runner takes.
    """
    data = envelope.encode(environ, False, envelope.WITH_CLIENT) + body
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, client.to_bytes(4, sys.byteorder))
    with upstream.connect(endpoint, 0.0) as site:
        try:
            sent = site.sendmsg([data], [rights], socket.MSG_NOSIGNAL)
        except OSError as error:  # ETOOMANYREFS: too many descriptors are under way (RLIMIT_NOFILE)
            raise ConnectFailed(f"{endpoint}: {error.strerror}") from error
    if sent < len(data):  # the runner drops what is not whole
        raise ConnectFailed(f"{endpoint}: a request of {len(data)} bytes was not taken as a whole")
