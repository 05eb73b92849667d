"""What there is to see of a home: the report of each site, and the document that all who show it read.

Face: `inventory.Inventory`, `document.document`, `report.judge`, `report.SiteReport`.
May import: all rooms but cli and service.
"""

from __future__ import annotations
