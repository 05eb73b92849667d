"""How everybody else talks to the supervisor, and where its sockets are.

Public: `client.Client`, `rundir.RuntimeDir`, `program` (how the supervisor is run), `peers` (who is at the other end).
"""

from __future__ import annotations
