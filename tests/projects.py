"""Small real projects of each kind, as somebody would begin one."""

from __future__ import annotations

from pathlib import Path

FLASK = {
    "app.py": "from flask import Flask\napp = Flask(__name__)\n\n@app.get('/')\ndef index():\n    return 'from Flask'\n"
}
FACTORY = {
    "blog/__init__.py": (
        "import flask\n\ndef create_app(config=None):\n    app = flask.Flask(__name__)\n"
        "    app.add_url_rule('/', view_func=lambda: 'from a factory')\n    return app\n"
    ),
    "blog/views.py": "",
    "tests/test_app.py": "from flask import Flask\napp = Flask('test')\n",
}
DJANGO = {
    "manage.py": (
        "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n"
        "if __name__ == '__main__':\n    from django.core.management import execute_from_command_line\n"
        "    execute_from_command_line(sys.argv)\n"
    ),
    "shop/__init__.py": "",
    "shop/settings.py": "SECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'shop.urls'\nINSTALLED_APPS = []\n",
    "shop/urls.py": (
        "from django.http import HttpResponse\nfrom django.urls import path\n"
        "urlpatterns = [path('', lambda request: HttpResponse('from Django'))]\n"
    ),
    "shop/wsgi.py": (
        "import os\nfrom django.core.wsgi import get_wsgi_application\n"
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\napplication = get_wsgi_application()\n"
    ),
}
PYRAMID = {
    "development.ini": "[app:main]\nuse = call:wiki:main\npyramid.reload_templates = true\n",
    "production.ini": "[app:main]\nuse = call:wiki:main\npyramid.reload_templates = false\n",
    "wiki/__init__.py": (
        "from pyramid.config import Configurator\nfrom pyramid.response import Response\n\n"
        "def main(global_config, **settings):\n    with Configurator(settings=settings) as config:\n"
        "        config.add_route('home', '/')\n"
        "        config.add_view(lambda request: Response('from Pyramid'), route_name='home')\n"
        "        return config.make_wsgi_app()\n"
    ),
}
FASTAPI = {
    "src/service/__init__.py": "",
    "src/service/main.py": (
        "from fastapi import FastAPI\nfrom fastapi.responses import PlainTextResponse\n"
        "api: FastAPI = FastAPI()\n\n@api.get('/')\nasync def index():\n    return PlainTextResponse('from FastAPI')\n"
    ),
}
STARLETTE = {
    "main.py": (
        "from starlette.applications import Starlette\nfrom starlette.responses import PlainTextResponse\n"
        "from starlette.routing import Route\n\nasync def index(request):\n"
        "    return PlainTextResponse('from Starlette')\n\napp = Starlette(routes=[Route('/', index)])\n"
    )
}
BOTTLE = {
    "wiki.py": "import bottle\napp = bottle.Bottle()\n\n@app.route('/')\ndef index():\n    return 'from Bottle'\n"
}
BOTTLE_DEFAULT = {
    "hello.py": (
        "from bottle import *\n\n@route('/')\ndef index():\n    return 'from the default Bottle'\n\n"
        "if __name__ == '__main__':\n    run(port=8080)\n"
    )
}
PLAIN = (
    "def application(environ, start_response):\n"
    "    start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [b'{}']\n"
)
WSGI_FILE = {"site.wsgi": PLAIN.format("from a .wsgi file"), "lib.py": ""}
WSGI = {"hello.py": PLAIN.format("from plain WSGI")}
ENTRY = {
    "wsgi.py": "from site_of_mine import create\napplication = create()\n",
    "site_of_mine.py": (
        "import flask\n\ndef create():\n    app = flask.Flask(__name__)\n"
        "    app.add_url_rule('/', view_func=lambda: 'from wsgi.py')\n    return app\n"
    ),
}
MOYA = {"settings.ini": "[project]\nlocation = ./\nstartup = startup.xml\n", "startup.xml": "<moya/>\n"}

#: kind → its files, what `new --from` has to find, what it answers
SERVED: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "flask": (FLASK, {"application": "app:app"}, "from Flask"),
    "factory": (FACTORY, {"application": "blog:create_app()"}, "from a factory"),
    "django": (DJANGO, {"application": "shop.wsgi:application"}, "from Django"),
    "pyramid": (PYRAMID, {"application": "paste:development.ini"}, "from Pyramid"),
    "fastapi": (FASTAPI, {"application": "asgi:service.main:api", "location": "src"}, "from FastAPI"),
    "starlette": (STARLETTE, {"application": "asgi:main:app"}, "from Starlette"),
    "bottle": (BOTTLE, {"application": "wiki:app"}, "from Bottle"),
    "bottle-default": (
        BOTTLE_DEFAULT,
        {"application": "hello:default_app()", "mode": "spawned"},
        "from the default Bottle",
    ),
    "wsgi-file": (WSGI_FILE, {"application": "site.wsgi"}, "from a .wsgi file"),
    "wsgi": (WSGI, {"application": "hello:application"}, "from plain WSGI"),
    "entry": (ENTRY, {"application": "wsgi:application"}, "from wsgi.py"),
}


def write(folder: Path, files: dict[str, str]) -> Path:
    """Make a project; returns its folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
