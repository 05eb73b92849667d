"""``name`` and ``name:rest``: loaders of other packages.

A package offers one as an entry point of the group ``multisite.loaders``::

    [options.entry_points]
    multisite.loaders =
        php = php_in_python:load

and it is called as::

    def load(rest: str, site: multisite.model.Site) -> Callable:
        '''Return the WSGI app; `rest` is what follows the first colon, "" if nothing does.'''

Whatever it raises is the error of that site. Our own forms win: a plugin is asked only for what is
neither one of our prefixes nor a file nor a module that can be found.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from multisite.inprocess.load_reasons import NotLoaded, name_remedy

if TYPE_CHECKING:
    from importlib_metadata import EntryPoints

    from multisite.config.model import Site

GROUP = "multisite.loaders"


@cache
def plugins() -> EntryPoints:
    """The installed loaders; looked for once in a process."""
    from importlib_metadata import entry_points

    return entry_points(group=GROUP)


def load(name: str, rest: str, site: Site) -> object:
    """The app that the loader `name` makes of `rest`."""
    if name not in plugins().names:
        raise NotLoaded(
            f"there is neither a module nor a loader named {name!r}",
            name_remedy(name, plugins().names) or "write it like blog.wsgi:application",
        )
    app: object = plugins()[name].load()(rest, site)
    return app
