"""How everybody else talks to the supervisor, and where its sockets are."""

from __future__ import annotations
