"""Started as a script by the site's interpreter: finds the modules beside this file, under another package name.

The folder of a script is the first entry of `sys.path` (unless ``-P`` or ``-I`` is given), and our ``wsgi`` or
``job`` must not be what a site imports by these names. `multiprocessing` imports the script again as
``__mp_main__`` in the processes that it spawns; nothing happens there.
"""

from __future__ import annotations

import os
import sys

PACKAGE = "_multisite_runner"
FOLDER = os.path.dirname(os.path.abspath(__file__))


def start() -> None:
    """Make the package and run it; the exit status is that of the backend."""
    import importlib

    if sys.path and os.path.abspath(sys.path[0]) == FOLDER:
        del sys.path[0]
    package = type(sys)(PACKAGE)
    package.__path__ = [FOLDER]
    sys.modules[PACKAGE] = package
    importlib.import_module(PACKAGE + ".startup").main()


if __name__ == "__main__":
    start()
