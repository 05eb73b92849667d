"""What is logged: the service's log, sites' logs, request lines.

Face: `servicelog` (whose site a record is about, incidents), `requests` (one request and its line), `logfiles`,
`loghandlers`.
May import: errors, config.
"""

from __future__ import annotations
