"""Commands that show, enter and change one site, or list which site answers which host.

Face: `hosttable.hosts`, `effective.show`, `enter.run`, `enter.shell`,
    `edit.set_`, `edit.rename`, `edit.remove`, `editor.edit`, `link.link`,
    `maintenance.maintenance`, `maintenance.pause`, `maintenance.resume`,
    `verdict.of_enabled`.
May import: as cli.
"""

from __future__ import annotations
