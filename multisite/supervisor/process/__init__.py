"""One process: how it is started, as which user, and what it prints.

Face: `spawn`, `launch.plan`, `preloaders.Preloaders`, `kernel`.
May import: as supervisor.
"""

from __future__ import annotations
