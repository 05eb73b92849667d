"""The state of a home: the report of each site, and the document that all views of the home use.

Face: `inventory.Inventory`, `document.document`, `report.judge`, `report.SiteReport`.
May import: all rooms but cli and service.
"""

from __future__ import annotations
