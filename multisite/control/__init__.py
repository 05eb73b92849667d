"""How other processes talk to the supervisor, where its sockets are, and whether this machine drains.

Face: `client.Client`, `rundir.RuntimeDir`, `program`, `draining`.
May import: errors, config.
"""

from __future__ import annotations
