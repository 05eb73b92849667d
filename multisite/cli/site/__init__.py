"""Commands that show, enter and change one site, or show who answers which host.

Face: `hosttable.hosts`, `effective.show`.
May import: as cli.
"""

from __future__ import annotations
