"""What a folder of somebody's code contains, guessed from `multisite.status.project`.

Face: `guess.guess`.
May import: as cli.
"""

from __future__ import annotations
