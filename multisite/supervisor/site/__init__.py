"""One spawned site: its queue, its backends, its starts, failures and deploys.

Face: `supervised.SupervisedSite`.
May import: as supervisor.
"""

from __future__ import annotations
