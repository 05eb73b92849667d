"""multisite: many low-traffic Python sites on one machine, behind one WSGI callable."""

from __future__ import annotations

import os

__version__ = "0.1.0"

__path__.append(os.path.join(__path__[0], "cli", "names"))  # `multisite.loghandlers` and the like stay
