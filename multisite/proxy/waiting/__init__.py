"""Requests that wait in a worker before they are sent: for a site to be up, or for the end of a pause.

Face: `coldstarts.ColdStarts`, `pause.PausedSite`.
May import: as proxy.
"""

from __future__ import annotations
