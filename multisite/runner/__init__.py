"""What runs inside a site's interpreter: it loads the site's app and answers requests on an inherited socket.

These modules are started as a script in the site's own interpreter (`__main__`), where nothing of ours is installed:
they use the standard library of CPython 3.9 and later, import nothing else of multisite, and import each other
relatively, because their package goes by another name there. The supervisor imports `multisite.runner.board` to
read what a backend counts.

Face: `__main__`, and as formats `board`, `envelope`, `requesthead`, `audit`.
May import: nothing of ours.
"""

from __future__ import annotations
