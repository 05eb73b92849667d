"""Imports a site into this interpreter, completely or not at all, and removes it again.

Face: `generation.Generation`, `loader.load`, `isolation`, `workdir`.
May import: errors, config, logs, sites, runner.
"""

from __future__ import annotations
