"""Sessions in the memory of several processes: seen in a site's files, and warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from multisite.cli import main
from multisite.status.project.sessions import in_memory

CACHE = 'SESSION_ENGINE = "django.contrib.sessions.backends.cache"\n'
REDIS = 'CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://x"}}\n'
LOCAL = 'CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}\n'
TWO = 'CACHES = {"default": {"BACKEND": "x.locmem.LocMemCache"}, "s": {"BACKEND": "x.redis.RedisCache"}}\n'


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("settings.py", "from pathlib import Path\n" + CACHE, "settings.py:2: SESSION_ENGINE"),
        ("settings.py", CACHE, "settings.py:1: SESSION_ENGINE is the cache, which is LocMemCache"),
        ("settings.py", LOCAL + CACHE, "settings.py:2: SESSION_ENGINE is the cache, which is LocMemCache"),
        ("settings.py", CACHE + TWO, "LocMemCache"),
        ("app.py", "from cachelib import SimpleCache\napp.config['SESSION_CACHELIB'] = SimpleCache()", "SimpleCache"),
        ("app.py", "app.config.update(SESSION_CACHELIB=cachelib.SimpleCache())", "SimpleCache"),
        ("production.ini", "[app:main]\nsession.type = memory\n", "production.ini:2: session.type = memory"),
        ("app.py", "opts = {'session.type': 'memory', 'session.auto': True}", "session.type = memory"),
        ("app.py", "conf = {'/': {'tools.sessions.on': True}}", "tools.sessions.on"),
        ("settings.py", CACHE + REDIS, ""),
        ("settings.py", CACHE + TWO + "SESSION_CACHE_ALIAS = 's'\n", ""),
        ("settings.py", CACHE + "CACHES = make_caches()\n", ""),
        ("settings.py", "from .base import *\n" + CACHE, ""),
        ("settings.py", 'SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"\n', ""),
        ("settings.py", "SESSION_ENGINE = os.environ['ENGINE']\n", ""),
        ("app.py", "app.config['SESSION_CACHELIB'] = FileSystemCache('x')  # not SimpleCache", ""),
        ("production.ini", "[app:main]\nsession.type = ext:memcached\n", ""),
        ("app.py", "conf = {'/': {'tools.sessions.on': True, 'tools.sessions.storage_class': FileSession}}", ""),
        ("app.py", "# tools.sessions.on: True\n", ""),
        ("app.py", "SESSION_ENGINE = (", ""),
    ],
)
def test_what_the_files_say_is_seen_and_nothing_else(tmp_path: Path, name: str, text: str, seen: str) -> None:
    (tmp_path / name).write_text(text)
    found = in_memory(str(tmp_path))
    assert (seen in found) if seen else not found, found


@pytest.mark.parametrize(("processes", "warned"), [(3, True), (1, False)])
def test_check_warns_where_there_are_several_processes(tmp_path: Path, processes: int, warned: bool) -> None:
    (tmp_path / "sites-enabled").mkdir()
    own = "[service]\nruntime_dir = run\n[supervisor]\nallow_root = yes\n"
    (tmp_path / "moya.conf").write_text("[projects]\nread = sites-enabled/*.ini\n" + own)
    (tmp_path / "app.py").write_text("def app(environ, start_response): ...\n")
    (tmp_path / "settings.py").write_text(CACHE)
    keys = f"domains = a.test\nlocation = {tmp_path}\napplication = app:app\nmode = spawned\nprocesses = {processes}\n"
    (tmp_path / "sites-enabled/a.ini").write_text(f"[service]\n{keys}")
    result = CliRunner().invoke(main, ["--home", str(tmp_path), "check"])
    assert result.exit_code == 0, result.output
    told = f"[service] processes = {processes}: sessions are kept in memory (settings.py:1: SESSION_ENGINE"
    assert (told in result.output) is warned


def test_what_is_too_large_or_no_file_is_passed_over(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "settings.py")
    (tmp_path / "big.py").write_text("#" * 600_000 + "\n" + CACHE)
    assert in_memory(str(tmp_path)) == in_memory(str(tmp_path / "nowhere")) == ""
