"""gunicorn in this process, without a configuration file and without a command line of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from multisite.config.trusted import of_gunicorn

_QUIET = {"control_socket_disable": True}  # every gunicorn of a user would open the same one; older ones have none
ENGINE = "multisite"


def run(settings: dict[str, Any]) -> None:
    """Run gunicorn until it is told to stop."""
    from gunicorn.app.base import BaseApplication

    class Standalone(BaseApplication):  # type: ignore[misc]
        """gunicorn with our settings alone."""

        def load_config(self) -> None:
            """Take our settings; an older gunicorn does not know them all."""
            for key, value in {**settings, **_QUIET}.items():
                if key in self.cfg.settings:
                    self.cfg.set(key, value)

        def load(self) -> Any:
            """Import the dispatcher, in the worker."""
            from multisite.service import application

            return application

    Standalone().run()


def believing(proxies: Iterable[str]) -> dict[str, str]:
    """Return the settings by which gunicorn believes whom we believe."""
    from gunicorn.config import Config

    named = of_gunicorn(proxies)
    try:
        Config().set("forwarded_allow_ips", ",".join(named))
    except ValueError:  # it is too old to know networks
        named = [proxy for proxy in named if "/" not in proxy]
    return dict.fromkeys(("forwarded_allow_ips", "proxy_allow_ips"), ",".join(named))


def knows(setting: str) -> bool:
    """Tell whether this gunicorn has a setting."""
    from gunicorn.config import Config

    return setting in Config().settings


def reloading() -> dict[str, Any]:
    """Return the settings by which a worker starts anew when multisite or an installed package has changed.

    Not when a site has: gunicorn's own reloader would restart all of them for that.
    """
    from gunicorn import reloader

    class Installed(reloader.Reloader):  # type: ignore[misc]
        """Watches the modules that are no site's."""

        def get_files(self) -> list[str]:
            """Return the files of those."""
            return [path for path in super().get_files() if path.startswith(_ROOTS)]

    reloader.reloader_engines[ENGINE] = Installed
    return {"reload": True, "reload_engine": ENGINE}


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOTS = (_PACKAGE + os.sep, sys.prefix + os.sep, sys.base_prefix + os.sep)
