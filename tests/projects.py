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
    "pyramid": (PYRAMID, {"application": "paste:production.ini"}, "from Pyramid"),
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


#: kind → its files, and what `new --from` has to find; what serves them is not installed for the tests
SEEN: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "dash": ({"app.py": "from dash import Dash\napp = Dash(__name__)\n"}, {"application": "app:app.server"}),
    "dash-named": (
        {"app.py": "import dash as d\napp = d.Dash(__name__)\nserver = app.server\n"},
        {"application": "app:server"},
    ),
    "dash-on-flask": (
        {"app.py": "import dash, flask\nmine = flask.Flask('x')\napp = dash.Dash('x', server=mine)\n"},
        {"application": "app:mine"},
    ),
    "two-names": (
        {"app.py": "from flask import Flask\napp = application = Flask(__name__)\n"},
        {"application": "app:application"},
    ),
    "two-names-asgi": (
        {"app.py": "from fastapi import FastAPI\nserver = api = app = FastAPI()\n"},
        {"application": "asgi:app:app"},
    ),
    "cherrypy": (
        {"site.py": "import cherrypy as cp\nclass Root: ...\napp = cp.Application(Root(), '')\n"},
        {"application": "site:app"},
    ),
    "cherrypy-mounted": (
        {"shop.py": "import cherrypy\nclass Root: ...\nserved = cherrypy.tree.mount(Root(), '/')\n"},
        {"application": "shop:served"},
    ),
    "cherrypy-tree": (
        {"shop.py": "import cherrypy\nclass Root: ...\ncherrypy.tree.mount(Root(), '/')\n"},
        {"application": "shop:cherrypy.tree"},
    ),
    "webpy": (
        {"code.py": "import web\nurls = ('/', 'x')\napp = web.application(urls, globals())\n"},
        {"application": "code:app.wsgifunc()"},
    ),
    "webpy-named": (
        {"main.py": "import web\napp = web.application((), {})\napplication = app.wsgifunc()\n"},
        {"application": "main:application"},
    ),
    "passenger": (
        {
            "passenger_wsgi.py": "from shop import app as application\n",
            "shop.py": "import flask\napp = flask.Flask('x')\n",
        },
        {"application": "passenger_wsgi:application"},
    ),
    "passenger-beside-wsgi": (
        {"passenger_wsgi.py": "from wsgi import application\n", "wsgi.py": PLAIN},
        {"application": "wsgi:application"},
    ),
    "dashed": ({"my-app.py": FLASK["app.py"]}, {"application": "my-app:app"}),
    "inis": (
        dict.fromkeys(("test.ini", "development.ini", "production.ini"), "[app:main]\nuse = egg:x\n"),
        {"application": "paste:production.ini"},
    ),
    "streamlit": (
        {
            "Home.py": "import streamlit as st\nst.title('x')\n",
            "pages/1_More.py": "import streamlit as st\nst.title('y')\n",
            "helpers.py": "import streamlit as st\n",
        },
        {
            "command": "python3 -m streamlit run Home.py --server.address 127.0.0.1 --server.port %PORT "
            "--server.headless true"
        },
    ),
    "gradio": (
        {"app.py": "import gradio as gr\ndemo = gr.Interface(fn=str)\nif __name__ == '__main__':\n    demo.launch()\n"},
        {"command": "env GRADIO_SERVER_NAME=127.0.0.1 GRADIO_SERVER_PORT=%PORT python3 app.py"},
    ),
    "gradio-on-fastapi": (
        {"app.py": "import gradio as gr, fastapi\napi = fastapi.FastAPI()\ngr.mount_gradio_app(api, None, '/x')\n"},
        {"application": "asgi:app:api"},
    ),
    "nicegui-on-fastapi": (
        {"app.py": "from fastapi import FastAPI\nfrom nicegui import ui\napi = FastAPI()\nui.run_with(api)\n"},
        {"application": "asgi:app:api"},
    ),
}
ROUTER = (
    "from channels.routing import ProtocolTypeRouter\nfrom django.core.asgi import get_asgi_application\n"
    "application = ProtocolTypeRouter({'http': get_asgi_application()})\n"
)
PLAIN_ASGI = "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n"
#: kind → files beside Django's own, what has to be found, and what has to be said of it
DJANGOS: dict[str, tuple[dict[str, str], str, str]] = {
    "both plain": ({"shop/asgi.py": PLAIN_ASGI}, "shop.wsgi:application", "Also found: application = asgi:shop.asgi"),
    "a router": ({"shop/asgi.py": ROUTER}, "asgi:shop.asgi:application", "makes more than get_asgi_application()"),
    "channels": (
        {"shop/asgi.py": PLAIN_ASGI, "shop/settings.py": "INSTALLED_APPS = ['channels']\n"},
        "asgi:shop.asgi:application",
        "channels is among INSTALLED_APPS",
    ),
    "a setting": (
        {"shop/routing.py": ROUTER, "shop/settings.py": "ASGI_APPLICATION = 'shop.routing.application'\n"},
        "asgi:shop.routing:application",
        "ASGI_APPLICATION = shop.routing.application",
    ),
    "a setting in a package": (
        {
            "shop/asgi.py": PLAIN_ASGI,
            "shop/settings.py": "from .base import *\n",
            "shop/base.py": "INSTALLED_APPS = ['daphne'] + []\nASGI_APPLICATION: str = 'shop.asgi.application'\n",
        },
        "asgi:shop.asgi:application",
        "Also found: application = shop.wsgi:application",
    ),
    "another wsgi": (
        {
            "conf/__init__.py": "",
            "conf/web.py": "app = None\n",
            "shop/settings.py": "WSGI_APPLICATION = 'conf.web.app'\n",
        },
        "conf.web:app",
        "Chosen: application = conf.web:app",
    ),
    "no asgi there": (
        {"shop/settings.py": "ASGI_APPLICATION = 'shop.asgi.application'\n"},
        "shop.wsgi:application",
        "",
    ),
}
BASE = "from pathlib import Path\nimport os\nBASE_DIR = Path(__file__).resolve().parent.parent\n"
#: what settings say of static files → what is proposed
STATIC: dict[str, tuple[str, dict[str, str]]] = {
    "slash": (f"{BASE}STATIC_URL = 'static/'\nSTATIC_ROOT = BASE_DIR / 'static' / 'all'\n", {"/static": "static/all"}),
    "join": (
        "import os\nHERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))\nSTATIC_URL = '/s/'\n"
        "STATIC_ROOT = os.path.join(HERE, 'gathered')\n",
        {"/s": "gathered"},
    ),
    "media": (
        f"{BASE}STATIC_URL = '/static/'\nSTATIC_ROOT = str(BASE_DIR.joinpath('x'))\nMEDIA_URL = '/media/'\n"
        "MEDIA_ROOT = BASE_DIR / 'uploads'\n",
        {"/static": "x", "/media": "uploads"},
    ),
    "no root": (f"{BASE}STATIC_URL = '/static/'\n", {}),
    "elsewhere": ("STATIC_URL = 'https://cdn.example.com/'\nSTATIC_ROOT = '/srv/static'\n", {}),
    "computed": ("STATIC_URL = '/static/'\nSTATIC_ROOT = find_it()\n", {}),
    "circular": ("A = B\nB = A\nSTATIC_URL = '/static/'\nSTATIC_ROOT = A / 'x'\n", {}),
}
