"""nginx as another user, straight to the sites' sockets: [supervisor] socket_group lets its workers in."""

from __future__ import annotations

import http.client
import os
from pathlib import Path

import pytest

from tests.supervisor.harness import supervised

from .harness import free_port
from .nginx import nginx_server

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, so that nginx's workers are somebody else"),
]

STRAIGHT = """
    server {{
        listen 127.0.0.1:{port};
        location / {{
            set $folder {run}/domains/$host;
            if (!-d $folder) {{ return 404; }}
            proxy_set_header Host $host;
            proxy_pass http://unix:$folder/http.sock;
        }}
    }}
"""


def get(port: int, host: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/", headers={"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


@pytest.mark.parametrize(("key", "status"), [("socket_group = www-data", 200), ("", 404)], ids=["group", "nobody"])
def test_nginx_reaches_a_cold_and_a_warm_site_if_its_group_is_let_in(public_path: Path, key: str, status: int) -> None:
    """Its workers run as www-data; without the group they do not even see the folder of the domain."""
    port = free_port()
    with supervised(public_path, key) as home:
        home.site("blog")
        home.ensure("blog")
        site = STRAIGHT.format(port=port, run=home.rundir.path)
        with nginx_server(public_path, site, port, os.environ, "www-data"):
            for _ in range(2):
                found, body = get(port, "blog.test")
                assert found == status
                assert (status == 404) or int(body.split()[0]) in home.state("blog")["pids"]
            assert get(port, "other.test")[0] == 404
