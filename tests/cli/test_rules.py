"""`multisite create-rules`: what it prints, writes and refuses; tests/servers has the rules served."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.cli.complete import sites as complete_sites
from tests.homes import TestHome


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    home = TestHome(tmp_path)
    for name in ("blog", "shop"):
        home.hello(name)
    return home


def run(home: TestHome, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.path), *arguments])


def rules(home: TestHome, *arguments: str) -> Result:
    return run(home, "create-rules", *arguments)


@pytest.mark.parametrize("option", ["--nginx", "-n", "--apache", "-a", "--lighttpd", "-l", "--caddy", "--haproxy"])
def test_all_sites(home: TestHome, option: str) -> None:
    """Without SITE, all enabled sites and the rest; twice the same."""
    first, second = rules(home, option), rules(home, option)
    assert first.exit_code == 0 and first.output == second.output
    for name in ("blog", "shop"):
        assert f"{name}.test" in first.stdout.replace("[.]", ".")
    assert str(home.path) in first.stdout.splitlines()[0]


def test_some_sites(home: TestHome) -> None:
    done = rules(home, "--nginx", "shop.ini")
    assert "shop.test" in done.stdout and "blog.test" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name the server"),
        (("--nginx", "--generic", "blog"), "--generic"),
        (("--nginx", "--wsgi"), "Apache"),
        (("--nginx", "--direct", "--uwsgi"), "--direct"),
        (("--lighttpd", "--direct"), "--direct"),
        (("--caddy", "--uwsgi"), "--uwsgi"),
        (("--caddy", "--tls", "/x"), "--tls"),
        (("--caddy", "--redirect"), "--redirect: caddy redirects visitors to HTTPS by itself"),
        (("--nginx", "--redirect"), "give the folder of the certificates with --tls"),
        (("--apache", "--redirect"), "give the folder of the certificates with --tls"),
        (("--nginx", "--generic", "--tls", "/x"), "--generic has one for all"),
        (("--nginx", "--listen", "80; evil"), "--listen '80; evil'"),
        (("--nginx", "--upstream", "127.0.0.1:8000;"), "--upstream"),
        (("--nginx", "--upstream", "unix:relative"), "--upstream"),
        (("--nginx", "--max-body", "much"), "--max-body 'much'"),
        (("--nginx", "--nodes", "10.0.0.1"), "--nodes '10.0.0.1': 10.0.0.1: the port is missing"),
        (("--nginx", "--nodes", ","), "no node is listed"),
        (("--nginx", "--nodes", "a:1", "--upstream", "b:1"), "omit one of them"),
        (("--apache", "--nodes", "a:1,b:1"), "use one of these, or omit --nodes"),
        (("--lighttpd", "--nodes", "a:1,b:1"), "only with nginx, HAProxy and Caddy"),
        (("--nginx", "--nodes", "a:1,b:1", "--direct"), "--direct leads to sockets of this machine"),
        (("--nginx", "--nodes", "a:1,b:1", "--bounded", "1.5"), "nginx cannot limit the requests of a node"),
        (("--haproxy", "--bounded", "1.5"), "list them with --nodes"),
        (("--haproxy", "--nodes", "a:1,b:1", "--bounded", "1"), "1.01"),
    ],
)
def test_nonsense_is_refused(home: TestHome, arguments: tuple[str, ...], sentence: str) -> None:
    done = rules(home, *arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert not done.stdout


def test_an_unknown_site(home: TestHome) -> None:
    done = rules(home, "--nginx", "blgo")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "did you mean blog?" in done.stderr


def test_a_value_that_the_server_cannot_write(home: TestHome) -> None:
    done = rules(home, "--apache", "--upstream", "unix:/run/%{x}.sock")
    assert done.exit_code == 1
    assert done.stderr.startswith("multisite: no rules for apache:")


def test_output_replaces_the_file_in_one_step(home: TestHome, tmp_path: Path) -> None:
    """What reads it meanwhile sees the old text or the new; a link stays a link."""
    target, link = tmp_path / "real.conf", tmp_path / "link.conf"
    target.write_text("old")
    link.symlink_to("real.conf")
    before = os.stat(target).st_ino
    assert rules(home, "--nginx", "--output", str(link)).output == f"wrote {link}\n"
    assert link.is_symlink() and target.read_text() == rules(home, "--nginx").stdout
    assert os.stat(target).st_ino != before and stat.S_ISREG(os.stat(target).st_mode)
    assert rules(home, "--nginx", "--output", str(link)).output == f"unchanged: {link}\n"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith("~")]


def test_a_server_that_is_not_installed_is_said(home: TestHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules are printed all the same."""
    monkeypatch.setattr("multisite.cli.frontends.syntax.PROGRAMS", {"nginx": ("no-such-server",)})
    done = rules(home, "--nginx", "--check")
    assert done.exit_code == 0
    assert done.stderr == "nginx is not installed here, so the rules were not checked\n"
    assert "server_name" in done.stdout


def test_json(home: TestHome) -> None:
    told = json.loads(run(home, "--json", "create-rules", "--caddy").stdout)
    assert told["server"] == "caddy" and told["checked"] is None
    assert told["rules"] == rules(home, "--caddy").stdout


def test_certificates_that_are_there(home: TestHome, tmp_path: Path) -> None:
    """--tls: a site whose certificate exists is served over TLS too, the others as before."""
    folder = tmp_path / "live" / "blog.test"
    folder.mkdir(parents=True)
    for name in ("fullchain.pem", "privkey.pem"):
        (folder / name).touch()
    text = rules(home, "--nginx", "--tls", str(tmp_path / "live")).stdout
    assert text.count("listen 443 ssl") == 1
    assert f'ssl_certificate "{folder}/fullchain.pem";' in text


@pytest.mark.parametrize("server", ["--nginx", "--apache"])
def test_a_site_without_a_certificate_is_named(home: TestHome, tmp_path: Path, server: str) -> None:
    """With the file that is missing, and what to do; whoever has one is not."""
    live = tmp_path / "live"
    for domain, names in (("blog.test", ("fullchain.pem", "privkey.pem")), ("half.test", ("fullchain.pem",))):
        (live / domain).mkdir(parents=True)
        for name in names:
            (live / domain / name).touch()
    home.hello("half")
    home.hello("none", domains="none.test, www.none.test")
    home.hello("star", domains="*.star.test")
    done = rules(home, server, "--tls", str(live))
    assert done.exit_code == 0
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    told = {line.split(": ")[1]: line for line in warnings}
    assert "blog" not in told
    assert f"there is no certificate {live}/half.test/privkey.pem, so half.test is served without TLS" in told["half"]
    assert f"there is no certificate {live}/none.test/fullchain.pem" in told["none"]
    assert "none.test and 1 more domain are served without TLS" in told["none"]
    assert "certbot certonly -d none.test" in told["none"]
    assert f"{live}/*.star.test/fullchain.pem" in told["star"]
    document = json.loads(rules(home, server, "--tls", str(live), "--json").stdout)
    assert [f"warning: {each}" for each in document["warnings"]] == warnings
    assert not any("certificate" in line for line in rules(home, server).stderr.splitlines())


def test_a_site_that_is_broken_has_no_files(home: TestHome) -> None:
    """Its page is ours; its domains stay its own."""
    home.ini("blog", "[service]\ndomains = blog.test\nthraeds = 4\n[static]\n/static = /srv/blog/static\n")
    text = rules(home, "--nginx", "blog").stdout
    assert "server_name blog.test" in text and "/srv/blog/static" not in text


def test_names_are_completed(home: TestHome) -> None:
    """The shell offers enabled sites."""
    context = main.make_context("multisite", ["--home", str(home.path), "create-rules"], resilient_parsing=True)
    parameter = main.get_command(context, "create-rules").params[-1]  # type: ignore[union-attr]
    assert complete_sites(context, parameter, "s") == ["shop"]


NODES = "10.0.0.1:8000, 10.0.0.2:8000=2"


def with_nodes(home: TestHome, *lines: str) -> None:
    (home.path / "moya.conf").write_text(f"[cluster]\nnodes = {NODES}\n" + "".join(f"{line}\n" for line in lines))


def test_nodes_of_moya_conf_need_no_argument(home: TestHome) -> None:
    """Each argument wins over them."""
    with_nodes(home)
    text = rules(home, "--nginx").stdout
    assert "    server 10.0.0.1:8000 max_fails=0;\n    server 10.0.0.2:8000 weight=2 max_fails=0;\n" in text
    assert 'proxy_pass "http://multisite";' in text and "proxy_next_upstream error timeout;" in text
    other = rules(home, "--nginx", "--nodes", "10.0.0.9:1").stdout
    assert "server 10.0.0.9:1 max_fails=0;" in other and "10.0.0.1" not in other
    assert "--nodes 10.0.0.9:1" in other.splitlines()[0]
    single = rules(home, "--nginx", "--upstream", "127.0.0.1:9").stdout
    assert "upstream multisite" not in single and "proxy_next_upstream off;" in single
    assert rules(home, "--apache", "--upstream", "127.0.0.1:9").exit_code == 0
    refused = rules(home, "--apache")
    assert (refused.exit_code, "moya.conf: [cluster] nodes:" in refused.stderr) == (2, True)
    assert "name one server with --upstream" in refused.stderr


def test_a_long_list_of_nodes_is_cut_in_the_title(home: TestHome) -> None:
    """nginx reads no line of 4,096 bytes, not even a comment."""
    listed = ",".join(f"10.0.{number}.1:8000" for number in range(256))
    text = rules(home, "--nginx", "--nodes", listed).stdout
    assert len(text.splitlines()[0]) < 1100 and text.count("max_fails=0;") == 256


@pytest.mark.parametrize("server", ["haproxy", "caddy"])
def test_a_server_that_checks_nodes_needs_the_host_of_health(home: TestHome, server: str) -> None:
    done = rules(home, f"--{server}", "--nodes", "10.0.0.1:8000,10.0.0.2:8000")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "moya.conf: [service] status_domain is not set; write status_domain = status.example.com" in done.stderr
    with_nodes(home, "[service]", "status_domain = status.test")
    assert "status.test" in rules(home, f"--{server}", "--nodes", "10.0.0.1:8000").stdout


def test_caddy_has_no_weights(home: TestHome) -> None:
    with_nodes(home, "[service]", "status_domain = status.test")
    done = rules(home, "--caddy")
    assert done.exit_code == 1 and "Caddy hashes without weights; use nginx or HAProxy" in done.stderr


def test_the_bound_of_haproxy_says_what_it_costs(home: TestHome) -> None:
    with_nodes(home, "[service]", "status_domain = status.test")
    text = rules(home, "--haproxy", "--bounded", "1.5").stdout
    assert "hash-balance-factor 150" in text and "differ from node to node" in text
    assert "weight 10\n" in text and "weight 20\n" in text
    assert "hash-balance-factor" not in rules(home, "--haproxy").stdout


def test_two_files_for_different_sites_do_not_clash(home: TestHome) -> None:
    with_nodes(home)
    assert "upstream multisite-shop {" in rules(home, "--nginx", "shop").stdout
    assert "upstream multisite-blog {" in rules(home, "--nginx", "blog").stdout


def test_explain_says_which_node_a_host_has(home: TestHome) -> None:
    """Caddy has none here, as its rules accept no weights."""
    assert "node:" not in run(home, "explain", "shop.test").stdout
    with_nodes(home)
    told = json.loads(run(home, "--json", "explain", "Shop.Test").stdout)["nodes"]
    assert set(told) == {"nginx", "HAProxy"} and set(told.values()) <= {"10.0.0.1:8000", "10.0.0.2:8000"}
    line = f"node:        {told['nginx']} (nginx), {told['HAProxy']} (HAProxy)"
    assert line in run(home, "explain", "shop.test").stdout
    (home.path / "moya.conf").write_text("[cluster]\nnodes = 10.0.0.1:8000, 10.0.0.2:8000\n")
    assert "Caddy" in json.loads(run(home, "--json", "explain", "shop.test").stdout)["nodes"]


def test_a_site_that_no_rule_can_keep_on_its_nodes_is_named(home: TestHome) -> None:
    """Its requests go to every node, as those of other sites do."""
    with_nodes(home)
    home.hello("shop", nodes="10.0.0.1:8000")
    assert rules(home, "--nginx").stderr == ""
    assert "omit --generic" in rules(home, "--nginx", "--generic").stderr
    done = rules(home, "--nginx", "--nodes", "10.0.0.8:1,10.0.0.9:1")
    assert "warning: shop: the site runs on 10.0.0.1:8000, but its requests go to every node" in done.stderr
    assert "multisite.1" not in done.stdout
    assert rules(home, "--nginx", "--upstream", "127.0.0.1:9").stderr == ""


def test_explain_chooses_among_the_nodes_of_the_site(home: TestHome) -> None:
    with_nodes(home, "node = 10.0.0.2:8000")
    for node in ("10.0.0.1:8000", "10.0.0.2:8000"):
        home.hello("shop", nodes=node)
        told = json.loads(run(home, "--json", "explain", "shop.test").stdout)
        assert set(told["nodes"].values()) == {node}
        assert told["service"] == ("elsewhere" if node == "10.0.0.1:8000" else None)
