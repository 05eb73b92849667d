"""Each command line that README.md and docs/ print runs as it is printed, page by page, on a machine of the page's own.

A line that cannot run there is marked in the page: ``<!-- not run: REASON -->`` before its block, or, for some lines of
a block, ``<!-- not run (PROGRAM): REASON -->``. Each of these is a skipped test, so the end of a run lists them.
"""

from __future__ import annotations

import re
import shutil
import sys
from itertools import chain
from pathlib import Path

import pytest

from .harness import not_tested
from .printed import PAGES, Machine, Printed, commands

PRINTED = {page: commands(page) for page in PAGES}
MARKED = [command for page in PRINTED.values() for command in page if command.reason]
#: What runs on one machine: the commands of a page, or of one part of the reference of commands.
GROUPS: dict[str, list[Printed]] = {}
for command in chain.from_iterable(PRINTED.values()):
    part = f": {command.section}" if command.page == "docs/commands.md" else ""
    GROUPS.setdefault(command.page + part, []).append(command)
RUN = [name for name, group in GROUPS.items() if any(not command.reason for command in group)]

NO_SUCH_COMMAND = 127
REASONS = (
    "needs another machine",
    "needs Docker",
    "needs Nomad",
    "needs the network",
    "needs root on a fresh system",
    "needs systemd",
    "runs all tests",
    "shows the form of a command",
    "needs a terminal",
)

MOYA_CONF = """[projects]
read = sites-enabled/*.ini
[supervisor]
allow_root = yes
default_user = root
"""
APPLICATION = """
def application(environ, start_response):
    print("asked for", environ["PATH_INFO"], file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello\\n"]
"""
FLASK = "from flask import Flask\n\napp = Flask(__name__)\n"
SITES = {
    "blog": "domains = blog.example.com\nlocation = /srv/blog\napplication = blog.wsgi:application\n",
    "blog-api": "domains = blog.example.com\nmount = /api\nlocation = /srv/blog-api\napplication = api:application\n",
    "shop": "domains = shop.example.com\nlocation = /srv/shop\napplication = shop.wsgi:application\n",
    "wiki": "domains = wiki.example.com\nlocation = /srv/wiki\napplication = wiki:application\n",
    "hello": "domains = hello.localhost\nlocation = /srv/hello\napplication = hello:application\n",
    "demo-a": "location = /srv/hello\napplication = hello:application\n",
    "demo-b": "location = /srv/hello\napplication = hello:application\n",
    "hosting": "domains = *.hosting.example\nlocation = /var/www/%HOST\n",
}
FILES = {
    "etc/moya/moya.conf": MOYA_CONF,
    **{f"etc/moya/sites-available/{name}.ini": f"[service]\n{text}" for name, text in SITES.items()},
    "srv/blog/blog/__init__.py": "",
    "srv/blog/blog/wsgi.py": APPLICATION,
    "srv/blog/manage.py": "print('nothing to migrate')\n",
    "srv/blog-api/api.py": APPLICATION,
    "srv/shop/shop/__init__.py": "",
    "srv/shop/shop/wsgi.py": APPLICATION,
    "srv/wiki/wiki.py": APPLICATION,
    "srv/hello/hello.py": APPLICATION,
    "var/www/ann.hosting.example/wsgi.py": APPLICATION,
    "var/log/multisite/service.log": "incident 3f2a9c01: it cannot be served\n",
    "home/ada/src/blog/app.py": FLASK,
    "home/ada/src/shop/app.py": FLASK,
    "home/ada/src/wiki/app.py": FLASK,
    "home/ada/.config/fish/completions/.keep": "",
    "etc/bash_completion.d/.keep": "",
}
FRESH = "rm -r /etc/moya; touch .venv/stamp-demo"  # a machine without a home; a checkout after `make venv`
SERVED = "multisite serve > /var/log/serve.log 2>&1 & until at 8000; do sleep 0.05; done"
#: An incident of blog, under the id that the page shows.
FAILED = (
    "sed -i 's/print(.*/raise KeyError(\"year\")/' /srv/blog/blog/wsgi.py\n"
    f"multisite set blog mode=in-process\n{SERVED}\ncurl -s -H 'Host: blog.example.com' http://127.0.0.1:8000/archive\n"
    """sed -Ei 's/("incident":")[0-9a-f]{8}"/\\13fa9c1d2"/' /var/lib/multisite/incidents/blog.jsonl"""
)
#: The status pages with TLS and a token, and curl, which fails if it gets an error page.
SIGNED_IN = """export STATUS_TOKEN=secret CURL_CA_BUNDLE=/srv/tls/default.pem; echo fail > ~/.curlrc; mkdir /srv/tls
printf '[service]\nstatus_domain = status.example.com\nstatus_token = $STATUS_TOKEN\n' >> /etc/moya/moya.conf
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=status.example.com -addext subjectAltName=DNS:status.example.com \\
    -keyout key.pem -out chain.pem; cat key.pem chain.pem > $CURL_CA_BUNDLE
echo 127.0.0.1 status.example.com >> /etc/hosts
multisite serve --bind 127.0.0.1:443 --tls /srv/tls > /var/log/serve.log 2>&1 & until at 443; do sleep 0.05; done"""
DEMO = "make run > /var/log/demo.log 2>&1 & until at 8000; do sleep 0.05; done"


def visited(host: str) -> str:
    """Serve the sites of /etc/moya and ask for one of them."""
    return f"{SERVED}\ncurl -sf -H 'Host: {host}' http://127.0.0.1:8000/"


#: What a page takes for granted: shell lines that run before the first command that begins so.
BEFORE: dict[str, dict[str, str]] = {
    "README.md": {"make run": FRESH, "multisite serve": "stop"},
    "docs/access.md": {"chown": "touch /etc/moya/blog.htpasswd"},
    "docs/add-a-site.md": {"multisite new": "multisite remove --yes blog"},
    "docs/commands.md": {
        "cd ~/src/wiki": "multisite remove --yes wiki",
        "multisite new blog": "multisite remove --yes blog",
        "multisite new shop": "multisite remove --yes shop",
        "multisite router": "echo 'blog.example.com 10.0.0.5:3031' > /etc/moya/map; multisite dissite blog blog-api\n"
        "printf '[router]\\nmap = map\\n' >> /etc/moya/moya.conf",
        **{f"multisite {name}": visited("blog.example.com") for name in ("status", "stats", "logs", "stop", "pause")},
        "multisite incident": FAILED,
        "multisite top": 'multisite() { TERM=xterm script -qec "multisite $*" /dev/null; }  # in a terminal',
        "multisite bill": visited("blog.example.com"),
        "multisite maintenance": "echo soon > /srv/blog/back-at-noon.html",
        "multisite completion zsh": "fpath=(- /home/ada)  # where the shell looks for completions",
    },
    "docs/debugging.md": {"multisite": visited("blog.example.com")},
    "docs/deploy/caddy.md": {"curl": SERVED},
    "docs/deploys.md": {
        "git": "git init -q --bare /srv/git; cd /srv/blog; git init -q; git add .\n"
        "git -c user.name=ada -c user.email=ada commit -qm new; git push -q -u /srv/git HEAD:main\n"
        "git remote add origin /srv/git; git fetch -q; git branch -q -u origin/main\n" + visited("blog.example.com"),
    },
    "docs/develop.md": {"multisite new": "multisite remove --yes blog"},
    "docs/hosting.md": {"multisite explain": visited("ann.hosting.example")},
    "docs/index.md": {"make run": FRESH},
    "docs/install.md": {"make run": FRESH, "MOYA_SERVICE_HOME": "stop; multisite --home /etc/moya init"},
    "docs/logging.md": {"multisite logs": visited("blog.example.com")},
    "docs/preloader.md": {"multisite": visited("blog.example.com")},
    "docs/router.md": {
        # Debian's uWSGI has its Python in a plugin.
        "uwsgi": 'cp /srv/hello/hello.py app.py; uwsgi() { /usr/bin/uwsgi --plugin python3 "$@"; }\n'
        "printf '[router]\\nsubscription_server = 127.0.0.1:7000\\nmap = map\\n' >> /etc/moya/moya.conf\n"
        "echo 'shop.example.org 10.0.0.5:3031' > /etc/moya/map; " + visited("blog.example.com"),
    },
    "docs/serve.md": {
        "multisite serve --bind": "mkdir -p /etc/letsencrypt/live/default; cd /etc/letsencrypt/live/default\n"
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout privkey.pem -out fullchain.pem; cd -",
    },
    "docs/sessions.md": {"curl": f"{FRESH}; {DEMO}"},
    "docs/status.md": {"curl": SIGNED_IN},
    "docs/static.md": {"find": "cd /srv/blog; mkdir static; echo 'p {}' > static/site.css"},
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine with Debian's programs, multisite in /opt, and the sites that the pages speak of."""
    files = tmp_path_factory.mktemp("machine")
    reason = Machine.cannot(tmp_path_factory.mktemp("trial"))
    if reason:
        not_tested(reason)
    for name in Machine.OVERLAID:
        (files / name).mkdir()
    for name, text in FILES.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(text)
    (files / "etc/moya/sites-enabled").mkdir()
    for name in SITES:
        (files / f"etc/moya/sites-enabled/{name}.ini").symlink_to(f"../sites-available/{name}.ini")
    (files / "opt/multisite").symlink_to(sys.prefix)
    return Machine(files)


@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_a_page_run(machine: Machine, tmp_path: Path, name: str) -> None:
    """Each ends with 0, or the page shows its error; and a table below it has the columns of the real one."""
    printed = GROUPS[name]
    page = printed[0].page
    results = machine.run(tmp_path, printed, BEFORE.get(page, {}))
    pairs = list(zip(printed, results, strict=True))
    missing = [command.text.split()[0] for command, (status, _) in pairs if status == NO_SUCH_COMMAND]
    wrong = [
        f"{command}\n[exit status {status}]\n{output[-2000:]}"
        for command, (status, output) in pairs
        if not command.reason and (status not in allowed(command) or not has_columns(output, command))
    ]
    assert not wrong, "\n\n".join(wrong)
    if missing:
        not_tested(f"{page}: {', '.join(missing)}: not installed; the other commands of the page did run")


def allowed(command: Printed) -> tuple[int | None, ...]:
    """Return the exit statuses that suit what the page shows; None is that of a command that is still running."""
    return (0, None, NO_SUCH_COMMAND, 1, 3) if command.may_fail else (0, None, NO_SUCH_COMMAND)


def has_columns(output: str, command: Printed) -> bool:
    """Tell whether the output has a table with the columns that the page shows."""
    header = command.header
    tables = (re.split(r"  +", line.strip()) for line in output.splitlines())
    if "columns hidden" in command.output:  # the page shows a narrow terminal, and this is none
        return any(set(header) <= set(names) for names in tables)
    return not header or header in tables


@pytest.mark.parametrize("command", MARKED, ids=str)
def test_what_is_not_run_is_marked_with_a_reason(command: Printed) -> None:
    """A mark has one of a few reasons, and is listed at the end of the run."""
    assert command.reason.startswith(REASONS), command
    pytest.skip(f"NOT RUN: {command.reason}: {command}")


def test_commands_stand_in_blocks_that_are_run() -> None:
    """No block of another kind holds a command line, and no program that a page calls is missing without a word."""
    hidden = [
        (page.name, line)
        for page in PAGES
        for language, text in re.findall(r"^ *```([^\n`]+)\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
        if language not in ("console", "sh", "bash", "shell")
        for line in text.splitlines()
        if line.startswith("$ ")
    ]
    assert not hidden
    assert len(RUN) > 20
    assert sum(map(len, PRINTED.values())) > 100
    assert shutil.which("bash")
