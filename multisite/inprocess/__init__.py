"""Importing a site into this interpreter, whole or not at all, and taking it out again.

Face: `generation.Generation`, `loader.load`, `isolation`, `workdir`.
May import: errors, config, logs, sites, runner.
"""

from __future__ import annotations
