"""One process: what it is started with, as whom, and what it prints.

Face: `spawn`, `launch.plan`, `preloaders.Preloaders`, `kernel`.
May import: as supervisor.
"""

from __future__ import annotations
