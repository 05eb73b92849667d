"""What a folder of somebody's code contains: guessed, looked over, and faults pointed at.

Face: `guess.guess`, `scan`, `faults`, `sessions`.
May import: as cli.
"""

from __future__ import annotations
