"""The sites of a home as every process sees them: which exist, which one answers a host, where each may run, and what
is noted and counted about them.

Face: `catalogue` and `live` (all sites of one moment), `hosts`, `placement`, `sharing`, `claims`, `usage`, `changes`,
`server`.
May import: errors, config, logs, the formats of runner.
"""

from __future__ import annotations
