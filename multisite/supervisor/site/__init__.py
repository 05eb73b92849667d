"""One spawned site: its queue, its backends, its starts, failures and deploys."""

from __future__ import annotations
