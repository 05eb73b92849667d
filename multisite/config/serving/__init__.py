"""What only `multisite serve` reads: publisher files, and what a developer's own server does."""

from __future__ import annotations
