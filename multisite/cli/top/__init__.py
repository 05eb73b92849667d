"""``multisite top``: the sites of a home, live in a terminal.

Face: `command.top`.
May import: as cli.
"""

from __future__ import annotations
