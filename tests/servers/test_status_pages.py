"""The status pages behind real servers: who is let in, a real failure on them, and no thread that is held."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from .harness import HomeDir, Server, ask, eventually, gunicorn

pytestmark = pytest.mark.servers

HOST = "status.localhost"
CONF = f"""[projects]
read = sites-enabled/*.ini
[service]
status_domain = {HOST}
status_token = let me in
status_admin = yes
[defaults]
share = yes
[supervisor]
allow_root = yes
examine = no
"""


@pytest.fixture(scope="module", params=["gthread", "sync"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[HomeDir, Server]]:
    path = tmp_path_factory.mktemp("status") / "home"
    path.mkdir()
    home = HomeDir(path).create()
    home.conf(CONF)
    home.site("blog", mode="spawned")
    home.site("broken", "import nothing_like_it", mode="spawned")
    with gunicorn(home, request.param, "--workers", "2") as server:
        assert server.ask("blog.test").status == 200
        assert server.ask("broken.test").status == 503
        yield home, server


def test_the_page_of_a_failure_is_that_of_its_incident(served: tuple[HomeDir, Server]) -> None:
    _home, server = served
    incident = re.findall(r"Incident ([0-9a-f]+)", server.ask("broken.test", accept="text/html").text)[0]

    def told() -> bool:
        return incident in server.ask(HOST).text

    eventually(told)
    page = server.ask(HOST, f"/incident/{incident}")
    assert page.status == 200 and "nothing_like_it" in page.text
    assert "nothing_like_it" in server.ask(HOST, "/site/broken").text


def test_figures_are_those_of_the_command(served: tuple[HomeDir, Server]) -> None:
    """Both look at different moments, and a site that cannot start changes its state by itself."""
    home, server = served

    def agree() -> bool:
        told = json.loads(server.ask(HOST, "/status.json").text)
        printed = json.loads(home.typed("--json", "status").stdout)
        assert told["supervisor"]["pid"] == printed["supervisor"]["pid"]
        both = [{row["name"]: (row["state"], row["requests"]) for row in each["sites"]} for each in (told, printed)]
        return both[0] == both[1]

    eventually(agree)


def test_a_site_shows_its_processes_and_deploys(served: tuple[HomeDir, Server]) -> None:
    home, server = served
    assert server.ask("blog.test").status == 200
    assert home.typed("restart", "--wait", "blog").exit_code == 0

    def shown() -> bool:
        text = server.ask(HOST, "/site/blog").text
        pids = home.processes(backends=True, of="blog")
        return len(pids) == 1 and f"<td>{next(iter(pids))}</td>" in text and "✔ done</td>" in text

    eventually(shown)


def test_metrics_and_health_are_there(served: tuple[HomeDir, Server]) -> None:
    _home, server = served
    assert server.ask(HOST, "/health").text == "ready\n"
    assert "multisite_site_state" in server.ask(HOST, "/metrics").text


def test_an_answer_of_events_ends_by_itself_where_no_thread_can_be_spared(served: tuple[HomeDir, Server]) -> None:
    """A sync worker and one with few threads are free at once."""
    _home, server = served
    answer = ask(server.port, HOST, "/events")
    assert answer.status == 200 and "retry: " in answer.text


def test_a_button_stops_a_site(served: tuple[HomeDir, Server]) -> None:
    home, server = served
    assert server.ask("blog.test").status == 200
    question = server.ask(HOST, "/site/blog?ask=stop").text
    form_token = re.findall(r'name="form" value="([^"]+)"', question)[0]
    body = f"do=stop&form={form_token}".encode()

    def pressed(**more: str) -> int:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        fields = {"Host": HOST, "Content-Type": "application/x-www-form-urlencoded", **more}
        connection.request("POST", "/site/blog", body, fields)
        status = connection.getresponse().status
        connection.close()
        return status

    assert pressed(**{"Sec-Fetch-Site": "cross-site"}) == 403
    assert pressed(**{"X-Forwarded-For": "127.0.0.1"}) == 401
    assert pressed() == 200
    eventually(lambda: not home.processes(backends=True, of="blog"))
    assert "stop of blog by 127.0.0.1, on this machine" in server.log()
