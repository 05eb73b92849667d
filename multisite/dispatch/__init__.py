"""From a request to the site that answers it, in a worker.

Face: `dispatcher.Dispatcher`, `site` (a site in the workers), `states` (its table), `static.StaticFiles`.
May import: errors, config, logs, sites, control, inprocess, proxy, the formats of runner.
"""

from __future__ import annotations
