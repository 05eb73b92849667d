"""nginx in front of gunicorn, with the configuration of docs/deploy/nginx.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from .harness import Server, assert_serves, debian_program, documented, free_port, gunicorn, two_sites

pytestmark = pytest.mark.servers

NGINX = """
daemon off;
pid {root}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    {site}
}}
"""


def test_nginx_passes_every_host_on(tmp_path: Path) -> None:
    """One server block carries all domains, and a new site needs no reload of nginx."""
    nginx = debian_program("nginx", "nginx-light")
    home, port = two_sites(tmp_path), free_port()
    with gunicorn(home, "gthread") as behind:
        site = documented(
            "nginx.md",
            "/etc/nginx/sites-available/multisite",
            {"127.0.0.1:8000": f"127.0.0.1:{behind.port}", "listen 80": f"listen 127.0.0.1:{port}"},
        )
        settings = tmp_path / "nginx.conf"
        settings.write_text(NGINX.format(root=tmp_path, site=site))
        argv = [nginx, "-p", str(tmp_path), "-c", str(settings)]
        with Server(argv, port, tmp_path / "log" / "nginx.log", home.environ()) as server:
            assert_serves(server, home)
