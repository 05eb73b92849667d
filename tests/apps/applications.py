"""Applications of PyPI: how a project of each is made, how it is served, and what a visitor does there."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.servers.harness import PATIENCE

from .visitor import Visitor

FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Application:
    """One application; `target` is what gunicorn and a site file are given alike."""

    packages: tuple[str, ...]
    target: str
    make: Callable[[Path, str], None]  # in this folder, with the interpreter that has the packages
    visit: Callable[[Visitor], None]
    env: tuple[tuple[str, str], ...] = ()
    worker: str = ""  # a worker class of gunicorn, for ASGI


def run(folder: Path, python: str, *argv: str, **more: str) -> None:
    """A command of the virtualenv; an error says what it printed."""
    program = Path(python).parent / argv[0]
    done = subprocess.run(
        [str(program), *argv[1:]], cwd=folder, env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"


# --- Wagtail --------------------------------------------------------------------------------------------------------

SETTINGS = """
from .base import *
SECRET_KEY = "of the tests"
ALLOWED_HOSTS = ["*"]
WAGTAILADMIN_BASE_URL = "http://app.test"
WAGTAIL_ENABLE_UPDATE_CHECK = False
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
"""
SERVED = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.tested")
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application
application = StaticFilesHandler(get_wsgi_application())
"""


def make_wagtail(folder: Path, python: str) -> None:
    run(folder, python, "wagtail", "start", "shop", str(folder))
    (folder / "shop" / "settings" / "tested.py").write_text(SETTINGS)
    (folder / "served.py").write_text(SERVED)
    settings = {"DJANGO_SETTINGS_MODULE": "shop.settings.tested"}
    run(folder, python, "python", "manage.py", "migrate", "-v", "0", **settings)
    admin = {"DJANGO_SUPERUSER_PASSWORD": "a long secret", **settings}
    run(
        folder, python, "python", "manage.py", "createsuperuser",
        "--noinput", "--username", "ada", "--email", "a@b.test", **admin,
    )  # fmt: skip


def visit_wagtail(visitor: Visitor) -> None:
    visitor.ask("/")
    visitor.ask("/", "HEAD")
    visitor.ask("/admin/")
    visitor.ask("/admin/login/?next=/admin/", "POST", FORM, form={"username": "ada", "password": "a long secret"})
    visitor.ask("/admin/login/?next=/admin/")
    login = {"username": "ada", "password": "a long secret", "next": "/admin/"}
    token = visitor.found(r'name="csrfmiddlewaretoken" value="(\w+)"')
    visitor.ask("/admin/login/", "POST", FORM, form={**login, "csrfmiddlewaretoken": token})
    assert visitor.last.status == 302, visitor.last
    visitor.ask("/admin/pages/")
    visitor.ask("/search/?query=home%20%C3%A9")
    visitor.ask("/static/css/shop.css")
    modified = dict(visitor.last.fields)["last-modified"]
    visitor.ask("/static/css/shop.css", fields={"if-modified-since": modified})
    assert visitor.last.status == 304
    visitor.ask("/nowhere/")
    visitor.ask("/admin")


# --- Flask-Admin ----------------------------------------------------------------------------------------------------

FLASK_ADMIN = """
from flask import Flask, jsonify, redirect
from flask_admin import Admin
from flask_admin.contrib.sqla import ModelView
from flask_admin.form import SecureForm
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config.update(SECRET_KEY="of the tests", SQLALCHEMY_DATABASE_URI="sqlite:///book.db")
db = SQLAlchemy(app)


class Guest(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(50))


class Guests(ModelView):
    form_base_class = SecureForm
    column_searchable_list = ["name"]
    can_export = True


@app.get("/")
def home():
    return redirect("/admin/")


@app.get("/guests.json")
def guests():
    return jsonify([guest.name for guest in Guest.query])


admin = Admin(app, name="Guests")
try:
    admin.add_view(Guests(Guest, db.session))
except TypeError:
    admin.add_view(Guests(Guest, db))
with app.app_context():
    db.create_all()
"""


def make_flask_admin(folder: Path, python: str) -> None:
    (folder / "book.py").write_text(FLASK_ADMIN)


def visit_flask_admin(visitor: Visitor) -> None:
    visitor.ask("/")
    visitor.ask("/admin/")
    visitor.ask("/admin/guest/new/")
    token = visitor.found(r'name="csrf_token"[^>]* value="([^"]+)"')
    visitor.ask("/admin/guest/new/", "POST", FORM, form={"name": "Nobody", "csrf_token": "wrong"})
    visitor.ask("/admin/guest/new/", "POST", FORM, form={"name": "Zoë & sons", "csrf_token": token})
    assert visitor.last.status == 302, visitor.last
    visitor.ask("/admin/guest/?search=zo")
    visitor.ask("/guests.json")
    assert json.loads(visitor.last.body) == ["Zoë & sons"]
    visitor.ask("/admin/guest/export/csv/")
    visitor.ask("/admin/static/admin/css/bootstrap4/admin.css")
    visitor.ask("/admin/static/admin/css/bootstrap4/admin.css", fields={"range": "bytes=10-99"})
    visitor.ask("/admin/guest")
    visitor.ask("/nowhere")


# --- Channels -------------------------------------------------------------------------------------------------------

CHANNELS = """
import os
from django.conf import settings
settings.configure(
    SECRET_KEY="of the tests", ALLOWED_HOSTS=["app.test"], ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.sessions", "channels"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
import django
django.setup()
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import SessionMiddlewareStack
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.urls import path


def home(request):
    request.session["name"] = request.GET.get("name", "nobody")
    return HttpResponse(f"<input name='token' value='{get_token(request)}'>")


async def form(request):
    return JsonResponse({"said": request.POST["said"], "by": await request.session.aget("name")})


async def streamed(request):
    async def pieces():
        for piece in ("one ", "two ", "three"):
            yield piece
    return StreamingHttpResponse(pieces(), content_type="text/plain")


urlpatterns = [path("", home), path("form/", form), path("streamed/", streamed)]


class Room(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept("chat")
        await self.send_json({"name": self.scope["session"]["name"], "room": self.scope["url_route"]["kwargs"],
                              "query": self.scope["query_string"].decode(), "path": self.scope["path"]})

    async def receive_json(self, content):
        if content == "end":
            return await self.close(4001)
        await self.channel_layer.group_send("room", {"type": "said", "text": content})

    async def said(self, event):
        await self.send_json(event["text"])


rooms = URLRouter([path("ws/<str:room>/", Room.as_asgi())])
application = ProtocolTypeRouter({
    "http": get_asgi_application(),
    "websocket": AllowedHostsOriginValidator(SessionMiddlewareStack(rooms)),
})
"""


def make_channels(folder: Path, python: str) -> None:
    (folder / "chat.py").write_text(CHANNELS)


def visit_channels(visitor: Visitor) -> None:
    visitor.ask("/?name=Ada")
    token = visitor.found(r"value='(\w+)'")
    visitor.ask("/form/", "POST", FORM, form={"said": "hello"})
    visitor.ask("/form/", "POST", FORM, form={"said": "häi", "csrfmiddlewaretoken": token})
    assert json.loads(visitor.last.body) == {"said": "häi", "by": "Ada"}
    visitor.ask("/streamed/")
    visitor.ask("/form")
    visitor.ask("/nowhere/")
    talk(visitor, "http://app.test", "first", {"a": "é" * 2000}, "end")
    talk(visitor, "http://evil.test")


def talk(visitor: Visitor, origin: str, *messages: object) -> None:
    """A WebSocket, with what the visitor's cookies say: what is heard, and how it ends."""
    heard: list[object] = []
    address = "ws://app.test/ws/blue%20room/?a=%20b"
    try:
        with connect(
            address, sock=visitor.connect(), origin=origin, subprotocols=["other", "chat"],  # type: ignore[list-item,arg-type]
            additional_headers={"Cookie": visitor.cookie()}, open_timeout=PATIENCE,
        ) as socket:  # fmt: skip
            heard += [socket.subprotocol, socket.recv(PATIENCE)]
            for message in messages:
                socket.send(json.dumps(message))
                if message != "end":
                    heard.append(socket.recv(PATIENCE))
            if "end" in messages:
                with contextlib.suppress(ConnectionClosed):
                    heard.append(socket.recv(PATIENCE))
            heard.append(socket.close_code)
    except InvalidStatus as error:
        heard.append(error.response.status_code)
    visitor.note("websocket", heard)


# --- Dash -----------------------------------------------------------------------------------------------------------

DASH = """
from dash import Dash, Input, Output, dcc, html

app = Dash(__name__, title="Tested")
app.layout = html.Div([dcc.Input(id="said", value=""), dcc.Graph(id="graph"), html.P(id="heard")])


@app.callback(Output("heard", "children"), Output("graph", "figure"), Input("said", "value"))
def hear(said):
    return f"heard {said}", {"data": [{"y": [len(said), 2, 3]}]}


server = app.server
"""


def make_dash(folder: Path, python: str) -> None:
    (folder / "board.py").write_text(DASH)
    (folder / "assets").mkdir()
    (folder / "assets" / "style.css").write_text("p { color: red }\n")
    os.utime(folder / "assets" / "style.css", (1_700_000_000, 1_700_000_000))  # Dash says it in addresses


def visit_dash(visitor: Visitor) -> None:
    visitor.ask("/")
    renderer = visitor.found(r'src="(/_dash-component-suites/dash/dash-renderer/[^"]+)"')
    visitor.ask("/assets/style.css?m=1700000000.0")
    visitor.ask("/_dash-layout")
    visitor.ask("/_dash-dependencies")
    output = json.loads(visitor.last.body)[0]["output"]
    outputs = [{"id": "heard", "property": "children"}, {"id": "graph", "property": "figure"}]
    said = {"id": "said", "property": "value", "value": "grüezi"}
    callback = {"output": output, "outputs": outputs, "inputs": [said], "changedPropIds": ["said.value"]}
    visitor.ask("/_dash-update-component", "POST", JSON, body=json.dumps(callback).encode())
    assert "heard gr" in visitor.last.text, visitor.last
    visitor.ask("/_dash-update-component", "POST", JSON, body=b"{}")
    visitor.ask("/_dash-update-component")
    visitor.ask(renderer)
    visitor.ask("/_dash-component-suites/dash/nowhere.js")
    visitor.ask("/assets/nowhere.css")
    visitor.ask("/some/page")


# --- Trac -----------------------------------------------------------------------------------------------------------


def make_trac(folder: Path, python: str) -> None:
    run(folder, python, "trac-admin", "env", "initenv", "Shop", "sqlite:db/trac.db")
    for allowed in ("TICKET_ADMIN", "WIKI_CREATE"):
        run(folder, python, "trac-admin", "env", "permission", "add", "anonymous", allowed)


def visit_trac(visitor: Visitor) -> None:
    visitor.ask("/")
    visitor.ask("/wiki")
    visitor.ask("/newticket")
    token = visitor.found(r'name="__FORM_TOKEN" value="(\w+)"')
    ticket = {"field_summary": "It's bröken", "field_description": "'''Bold'''", "field_reporter": "ada"}
    ticket |= {"field_status": "new", "submit": "Create ticket"}
    visitor.ask("/newticket", "POST", FORM, form=ticket)
    visitor.ask("/newticket", "POST", FORM, form={**ticket, "__FORM_TOKEN": token})
    assert visitor.last.status == 303, visitor.last
    visitor.ask("/ticket/1")
    visitor.ask("/ticket/1?format=csv")
    visitor.ask("/query?status=new&format=rss")
    visitor.ask("/chrome/common/css/trac.css")
    visitor.ask("/chrome/common/css/trac.css", "HEAD")
    visitor.ask("/wiki/Nowhere/%C3%A9?action=edit")
    visitor.ask("/login")
    visitor.ask("/nowhere")


# --- Isso -----------------------------------------------------------------------------------------------------------

ISSO = """
[general]
dbpath = comments.db
host = http://app.test/
[guard]
enabled = false
[hash]
salt = of the tests
"""


def make_isso(folder: Path, python: str) -> None:
    (folder / "isso.conf").write_text(ISSO)


def visit_isso(visitor: Visitor) -> None:
    comment = {"author": "Ada", "email": "ada@app.test", "text": "A *comment*, grüezi", "title": "A page"}
    visitor.ask("/?uri=/page")
    visitor.ask("/new?uri=/page", "POST", JSON, body=json.dumps(comment).encode())
    assert visitor.last.status == 201, visitor.last
    visitor.ask("/new?uri=/page", "POST", JSON, body=json.dumps({**comment, "text": ""}).encode())
    visitor.ask("/new?uri=/page", "POST", FORM, body=b"text=forged")
    visitor.ask("/id/1", "PUT", JSON, body=json.dumps({**comment, "text": "changed"}).encode())
    assert visitor.last.status == 200, visitor.last
    visitor.ask("/?uri=/page", fields={"origin": "http://app.test"})
    visitor.ask("/count", "POST", JSON, body=b'["/page", "/other"]')
    visitor.ask("/count", "OPTIONS", {"origin": "http://app.test", "access-control-request-method": "POST"})
    visitor.ask("/js/embed.min.js")
    visitor.ask("/id/1", "DELETE", JSON)
    visitor.ask("/nowhere")


APPLICATIONS = {
    "wagtail": Application(("wagtail",), "served:application", make_wagtail, visit_wagtail),
    "flask-admin": Application(
        ("flask-admin", "flask-sqlalchemy"), "book:app", make_flask_admin, visit_flask_admin
    ),
    "channels": Application(
        ("channels", "uvicorn-worker", "websockets"), "chat:application", make_channels, visit_channels,
        worker="uvicorn_worker.UvicornWorker",
    ),
    "dash": Application(("dash",), "board:server", make_dash, visit_dash),
    "trac": Application(
        ("Trac", "setuptools<80", "multipart"), "trac.web.main:dispatch_request", make_trac, visit_trac,
        env=(("TRAC_ENV", "env"),),
    ),
    "isso": Application(
        ("isso",), "isso.run:application", make_isso, visit_isso, env=(("ISSO_SETTINGS", "isso.conf"),)
    ),
}  # fmt: skip
