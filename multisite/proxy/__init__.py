"""Relaying a request to a backend and its answer back; `wire` is pure bytes.

Face: `spawned` (a site that lives elsewhere), `proxy.Proxy` (an upstream), `relay.relay` (one request).
May import: errors, config, logs, sites, control, the formats of runner.
"""

from __future__ import annotations
