"""``python -m multisite`` is the command ``multisite``."""

from multisite.cli import main

if __name__ == "__main__":
    main()
