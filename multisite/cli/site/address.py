"""The address of a site: its domain, and the port on which a server of the home listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multisite.cli.publishers import listeners

if TYPE_CHECKING:
    from multisite.cli.session import Session
    from multisite.config.model import SiteFile

DEFAULT_PORT = 8000
HTTP, HTTPS = 80, 443


def address_of(session: Session, file: SiteFile) -> tuple[str, str]:
    """Return the URL of a site, and a note about it ("" for none)."""
    ports = {port for _host, port in listeners.of_service(session)}
    port = next((port for port in (HTTP, HTTPS) if port in ports), min(ports, default=DEFAULT_PORT))
    host = next((domain for domain in file.domains if not set(domain) & set("*{")), f"{file.name}.localhost")
    scheme = "https" if port == HTTPS else "http"
    shown = "" if port in (HTTP, HTTPS) else f":{port}"
    note = "" if ports else " as soon as multisite serve, or another server of these sites, is running"
    return f"{scheme}://{host}{shown}{file.mount.rstrip('/')}/", note
