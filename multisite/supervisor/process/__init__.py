"""One process: what it is started with, by whom, as whom, and what it prints.

Public: `launch.plan` makes a `spec.Launch` of a site, `spawn.spawn` and `preloaders.Preloaders` make a process of that.
"""

from __future__ import annotations
