"""Requests that wait in a worker before they are sent: for a site, for the end of a pause, or for a slow client.

Face: `coldstarts.ColdStarts`, `pause.PausedSite`.
May import: as proxy.
"""

from __future__ import annotations
