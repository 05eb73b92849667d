"""The grammar of ``application =``."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multisite.config.application import AppSpec, Call, parse


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("blog.wsgi:application", AppSpec("module", "blog.wsgi", "application")),
        ("  blog : app ", AppSpec("module", "blog", "app")),
        ("blog", AppSpec("module", "blog")),
        ("blog.wsgi", AppSpec("module", "blog.wsgi")),
        ("blog:sites.main.app", AppSpec("module", "blog", "sites.main.app")),
        ("blog:make_app()", AppSpec("module", "blog", "make_app", Call())),
        ("blog:make_app('x', debug=True)", AppSpec("module", "blog", "make_app", Call(("x",), {"debug": True}))),
        ("blog:make_app('a:b/c.py')", AppSpec("module", "blog", "make_app", Call(("a:b/c.py",)))),
        (
            "blog:Sites.make([1, -2], {'a': None})",
            AppSpec("module", "blog", "Sites.make", Call(([1, -2], {"a": None}))),
        ),
        ("café:app", AppSpec("module", "café", "app")),
        ("my-app:application", AppSpec("module", "my-app", "application")),
        ("my-app:make(1)", AppSpec("module", "my-app", "make", Call((1,)))),
        ("my-app.web:box.app", AppSpec("module", "my-app.web", "box.app")),
        ("shop.my-app", AppSpec("module", "shop.my-app")),
        ("2048:app", AppSpec("module", "2048", "app")),
        ("asgi:my-app:app", AppSpec("asgi", "my-app", "app")),
        ("django:my-site.settings", AppSpec("django", "my-site.settings")),
        ("app.py", AppSpec("file", "app.py")),
        ("app.py:create()", AppSpec("file", "app.py", "create", Call())),
        ("deploy/blog.wsgi", AppSpec("file", "deploy/blog.wsgi")),
        ("/srv/blog/my site.wsgi:main", AppSpec("file", "/srv/blog/my site.wsgi", "main")),
        ("my-blog.wsgi", AppSpec("file", "my-blog.wsgi")),
        ("bin/server", AppSpec("file", "bin/server")),
        ("paste:development.ini", AppSpec("paste", "development.ini")),
        ("paste:/etc/x/production.ini#admin", AppSpec("paste", "/etc/x/production.ini", "admin")),
        ("django:project.settings", AppSpec("django", "project.settings")),
        ("asgi:blog.main:app", AppSpec("asgi", "blog.main", "app")),
        ("asgi:main.py:make()", AppSpec("asgi", "main.py", "make", Call())),
        ("moya:", AppSpec("moya", "")),
        ("cgi:/usr/lib/cgi-bin", AppSpec("plugin", "cgi", "/usr/lib/cgi-bin")),
        ("my-loader", AppSpec("plugin", "my-loader")),
        ("php:public dir", AppSpec("plugin", "php", "public dir")),
    ],
)
def test_every_form_of_the_contract_is_read(text: str, spec: AppSpec) -> None:
    assert parse(text) == spec


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        ("", "it is empty", "blog.wsgi:application"),
        ("blog:", "nothing follows the ':'", "leave the ':' out"),
        ("blog:make_app(", "'make_app(' is neither a name nor a call", "make_app('x', debug=True)"),
        ("blog:make_app(os.environ)", "the arguments may only be literals", "make_app('x', debug=True)"),
        ("blog:make_app(*[1])", "may not have * or **", "make_app('x', debug=True)"),
        ("blog:make_app(**{'a': 1})", "may not have * or **", "make_app('x', debug=True)"),
        ("blog:make_app({[]: 1})", "the arguments may only be literals", "make_app('x', debug=True)"),
        ("blog:make()()", "the name may only have letters", "make_app"),
        ("blog.wsgi:a b", "'a b' is neither a name nor a call", "obj.app"),
        ("blog:class", "'class' is neither a name nor a call", "obj.app"),
        ("app.py:b/x.wsgi", "neither a name nor a call", "obj.app"),
        ("blog:f(" + "(" * 900, "neither a name nor a call", "obj.app"),
        ("blog:f(" + "-" * 900 + "1)", "neither a name nor a call", "obj.app"),
        ("x" * 1001, "longer than 1000", "blog.wsgi:application"),
        ("blog:app\x00", "control characters", "blog.wsgi:application"),
        ("blog:app\nother:app", "control characters", "blog.wsgi:application"),
        ("..blog:app", "'..blog' is neither a module nor a file", "blog.wsgi:application"),
        ("blog wsgi:app", "neither a module nor a file", "blog.wsgi:application"),
        ("django:", "no settings module", "django:blog.settings"),
        ("django:settings/x.py", "no settings module", "django:blog.settings"),
        ("paste:", "names no file", "paste:development.ini"),
        ("paste:#admin", "names no file", "paste:development.ini"),
        ("asgi:", "names no app", "asgi:blog.main:app"),
        ("127.0.0.1:8000", "neither a module nor a file", "blog.wsgi:application"),
        ("-app:application", "neither a module nor a file", "blog.wsgi:application"),
        ("my-app.-web:app", "neither a module nor a file", "blog.wsgi:application"),
        ("asgi:my-loader", "neither a module nor a file", "asgi:blog.main:app"),
        ("moya:production.ini", "takes nothing after it", "ini = production.ini"),
    ],
)
def test_a_slip_is_told_with_its_reason_and_a_remedy(text: str, reason: str, remedy: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert type(caught.value) is ValueError
    assert reason in str(caught.value)
    assert remedy in str(caught.value)


def test_the_default_callable_is_application_and_for_a_py_file_also_app() -> None:
    assert parse("blog").candidates == ("application",)
    assert parse("x/blog.wsgi").candidates == ("application",)
    assert parse("app.py").candidates == ("application", "app")
    assert parse("app.py:main").candidates == ("main",)


def test_a_name_that_ends_in_wsgi_can_be_read_as_a_file() -> None:
    assert parse("blog.wsgi:app").as_file() == AppSpec("file", "blog.wsgi", "app")


def test_a_path_is_told_from_a_module() -> None:
    assert parse("asgi:main.py:app").is_file
    assert not parse("asgi:main:app").is_file
    assert parse("paste:x.ini").is_file


@given(st.text(max_size=60) | st.from_regex(r"[a-z]{0,3}[.:/(]{0,3}[a-z'\[{(*-]{0,9}[):]?"))
@example("a:" + "(" * 500)
@example("a:f({**1})")
def test_any_text_is_either_read_or_refused_with_a_value_error(text: str) -> None:
    try:
        spec = parse(text)
    except ValueError as error:
        assert "; " in str(error)
    else:
        assert spec.candidates
