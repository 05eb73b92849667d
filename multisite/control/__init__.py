"""How other processes talk to the supervisor, and where its sockets are.

Face: `client.Client`, `rundir.RuntimeDir`, `program`.
May import: errors, config.
"""

from __future__ import annotations
