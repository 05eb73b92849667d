"""What is written down: the service's log, sites' logs, request lines."""

from __future__ import annotations
