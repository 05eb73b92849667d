"""``python -m multisite`` is the command ``multisite``."""

from __future__ import annotations

from multisite.cli import main

if __name__ == "__main__":
    main()
