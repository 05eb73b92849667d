"""Several machines that serve one home: which there are, what they share through an engine, and which of them a
front end chooses for a host.

Face: `nodes` (the members, and which of them this machine is), `registry` (what they share), `engines` (where).
May import: errors, config.
"""

from __future__ import annotations
