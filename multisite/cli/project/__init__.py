"""Guess what serves a folder of somebody's code, from `multisite.status.project`.

Face: `guess.guess`.
May import: as cli.
"""

from __future__ import annotations
