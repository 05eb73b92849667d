"""What can be seen of a site's code, its imports and its interpreter; nothing of it is imported or run.

Face: `faults.site_problems`, `scan.survey`, `sessions.problem`.
May import: as status.
"""

from __future__ import annotations
