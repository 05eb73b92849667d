"""The header by which a node vouches for a request that it relays to the node that runs a site (pure).

The receiving node is told what the client's own server knew: the peer's address, the scheme, the user who signed in,
and what a trusted front end said about its client. All of that is in one field, with a signature (HMAC-SHA256) by the
cluster's key over it and over the method, the host and the path. The body is not signed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from multisite.runner.requesthead import is_claim

FIELD = "HTTP_X_MULTISITE_RELAY"  # its key in the environ
RELAYED = "multisite.relayed"  # environ key: how often the request has been relayed; it was checked here
VALID_FOR = 30.0  # seconds that the clocks of two nodes may differ, the way included
LONGEST = 16384  # characters of the field
_OF_CLIENT = ("REMOTE_ADDR", "REMOTE_PORT", "REMOTE_USER", "AUTH_TYPE")  # here they are those of the other node

Environ = dict[str, Any]


class BadSignature(ValueError):
    """No node of this cluster has signed the request so; the message is the reason."""


def sign(environ: Mapping[str, Any], key: bytes, holder: str, wall: float) -> str:
    """Return the field for a request.

    Args:
        environ: of the request, as its site would have got it here.
        key: the cluster's.
        holder: address of the node to which it is relayed.
        wall: Unix seconds.
    """
    told = {
        "to": holder,
        "at": round(wall, 3),
        "address": environ.get("REMOTE_ADDR", ""),
        "port": str(environ.get("REMOTE_PORT", "")),
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "user": environ.get("REMOTE_USER", ""),
        "times": environ.get(RELAYED, 0) + 1,
        "claims": {name: value for name, value in environ.items() if is_claim(name)},
    }
    text = base64.urlsafe_b64encode(json.dumps(told, separators=(",", ":")).encode()).decode()
    return f"{text}.{_signature(text, environ, key)}"


def _signature(text: str, environ: Mapping[str, Any], key: bytes) -> str:
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    parts = (text, environ["REQUEST_METHOD"], environ.get("HTTP_HOST", ""), path, environ.get("QUERY_STRING", ""))
    return hmac.new(key, "\n".join(parts).encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def receive(environ: Environ, field: str, key: bytes, own: str, wall: float) -> None:
    """Make `environ` what it was at the node that has signed the field.

    Args:
        environ: of the request; it is changed only if the signature is good.
        field: as it came.
        key: the cluster's.
        own: address of this node.
        wall: Unix seconds.

    Raises:
        BadSignature: it is not.
    """
    text, _, signature = field.partition(".")
    expected = _signature(text, environ, key)
    if len(field) > LONGEST or not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
        raise BadSignature("its signature is wrong; all nodes need the same key_file")
    try:
        told = json.loads(base64.urlsafe_b64decode(text))
        to, late, seen = str(told["to"]), wall - float(told["at"]), _seen(told)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadSignature("it is not understood; all nodes need the same version of multisite") from None
    if to != own:
        raise BadSignature(f"it is for the node {to}, and this is {own}")
    if not abs(late) <= VALID_FOR:
        raise BadSignature(f"it was signed {late:.0f} s ago by this node's clock; set the clocks")
    for name in [name for name in environ if is_claim(name) or name in _OF_CLIENT]:
        del environ[name]
    environ.update(seen)


def _seen(told: Mapping[str, Any]) -> Environ:
    """Return for the environ what the other node's server knew of the client, and how often it has been relayed."""
    user, port = str(told["user"]), str(told["port"])
    return {
        **{name: str(value) for name, value in told["claims"].items() if is_claim(name)},
        "REMOTE_ADDR": str(told["address"]),
        "wsgi.url_scheme": str(told["scheme"]),
        RELAYED: int(told.get("times", 1)),
        **({"REMOTE_PORT": port} if port else {}),
        **({"REMOTE_USER": user, "AUTH_TYPE": "Basic"} if user else {}),
    }
