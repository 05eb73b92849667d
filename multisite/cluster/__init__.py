"""Several machines that serve one home: which there are, and which of them a front end chooses for a host.

Face: `nodes` (the members, and which of them this machine is).
May import: errors, config.
"""

from __future__ import annotations
