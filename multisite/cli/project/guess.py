"""From the files of a project to what serves it: the framework, the application, and its import path (pure).

Each kind of project has one finder, which yields its findings; the first kind with any findings decides, because each
is more specific than the next. A Django project may well contain a function that looks like a WSGI application.
"""

from __future__ import annotations

import ast
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

from multisite.cli.project.guess_django import makes_more, managed
from multisite.status.project.sources import (
    USUAL,
    Guess,
    NoGuess,
    Project,
    bound,
    called,
    callee,
    frameworks,
    imported,
    needs_arguments,
    place,
    rank,
    service,
    settings_of,
    targets,
)

NAMES = ("application", "app", "api", "server")
FACTORIES = ("create_app", "make_app", "create_application", "get_app", "main")
#: names of modules that exist only to be served → their names for people
KINDS = {"wsgi": "WSGI", "passenger_wsgi": "Passenger", "asgi": "ASGI"}
PASTE = ("app:main", "composite:main", "composit:main", "pipeline:main", "filter-app:main")
PREFERRED_INI = ("production.ini", "development.ini")
DASH = "A Dash object is not a WSGI application, but the Flask application in it is."
USUAL_SCRIPTS = ("streamlit_app", "main", "app", "Home", "home", "index", *USUAL)
OWN_SERVER = "It has its own server, which multisite starts on a port of its choice (%PORT)."
# Neither of the two reads a port from its environment or its command line, so the function that starts it gets one.
_NICEGUI = (
    "import runpy, sys; from nicegui import ui; start, port = ui.run, int(sys.argv.pop()); sys.argv = ['{script}']; "
    "ui.run = lambda *a, **k: start(*a, **(k | dict(host='127.0.0.1', port=port, reload=False, show=False))); "
    "runpy.run_path('{script}', run_name='__main__')"
)
_CHERRYPY = (
    "import runpy, sys, cherrypy; server, port = cherrypy.server, int(sys.argv.pop()); sys.argv = ['{script}']; "
    "cherrypy.engine.autoreload.unsubscribe(); cherrypy.engine.subscribe('start', "
    "lambda: (setattr(server, 'socket_host', '127.0.0.1'), setattr(server, 'socket_port', port)), 1); "
    "runpy.run_path('{script}', run_name='__main__')"
)


def paste(project: Project) -> Iterator[Guess]:
    """Find files with a section that PasteDeploy serves."""
    for name, sections in project.inis.items():
        main = next((section for section in PASTE if section in sections), None)
        if main:
            uses = sections[main].get("use", "")
            framework = "Pyramid" if any(key.startswith("pyramid.") for key in sections[main]) else "Paste"
            why = f"{name} has [{main}]" + (f" with use = {uses}" if uses else "")
            yield Guess(framework, why, service(project.folder, f"paste:{name}"), rank(name, PREFERRED_INI))


def moya(project: Project) -> Iterator[Guess]:
    """Find files with the location and the startup of a Moya project."""
    for name, sections in project.inis.items():
        if "startup" in sections.get("project", {}) and "location" in sections["project"]:
            settings = {"location": project.folder, "ini": name}
            why = f"{name} has [project] with location and startup"
            yield Guess("Moya", why, settings, rank(name, ("production.ini", "settings.ini")))


def wsgi_files(project: Project) -> Iterator[Guess]:
    """Find files that mod_wsgi would load."""
    for name, tree in project.sources.items():
        if name.endswith(".wsgi") and "application" in bound(tree):
            why = f"{name} defines application"
            yield Guess("WSGI", why, service(project.folder, name), name.count(os.sep))


def entry_modules(project: Project) -> Iterator[Guess]:
    """Find modules with the names wsgi, passenger_wsgi or asgi, which exist to be served, whatever they import."""
    for name, tree in project.sources.items():
        kind = os.path.basename(name).removesuffix(".py")
        served = next((word for word in ("application", "app") if word in bound(tree)), None)
        if kind in KINDS and served:
            prefix = "asgi:" if kind == "asgi" else ""
            framework = next((found for found, _ in frameworks(tree)), KINDS[kind])
            settings = settings_of(project, name, served, prefix)
            order = len(KINDS) * name.count(os.sep) + list(KINDS).index(kind)
            if kind == "asgi" and makes_more(tree):
                order -= len(KINDS)  # more than wsgi.py beside it can serve
            yield Guess(framework, f"{name} defines {served}", settings, order)


def plain(project: Project) -> Iterator[Guess]:
    """Find ``def application(environ, start_response):`` (PEP 3333)."""
    for name, tree in project.sources.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and [each.arg for each in node.args.args] == [
                "environ",
                "start_response",
            ]:
                why = f"{name}:{node.lineno} has {node.name}(environ, start_response)"
                usual = node.name not in ("application", "app")
                yield Guess("WSGI", why, settings_of(project, name, node.name), 2 * place(name) + usual)


def objects(project: Project) -> Iterator[Guess]:
    """Find ``app = Flask(__name__)`` at the top of a module."""
    for name, tree in project.sources.items():
        classes = imported(tree)
        for node in tree.body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            found = classes.get(callee(value))
            names = sorted(targets(node), key=lambda name: rank(name, NAMES))
            for target in names[:1] if found else ():  # the most usual of several names for one object
                assert found
                framework, prefix = found
                why = f"{name}:{node.lineno} has {target} = {framework}(…)"
                yield Guess(framework, why, settings_of(project, name, target, prefix), place(name))


def factories(project: Project) -> Iterator[Guess]:
    """Find ``def create_app():`` that needs no arguments and makes an application."""
    for name, tree in project.sources.items():
        classes = imported(tree)
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef) or needs_arguments(node.args):
                continue
            made = [found for call in ast.walk(node) if (found := classes.get(callee(call)))]
            if made and (node.name in FACTORIES or any(isinstance(each, ast.Return) for each in ast.walk(node))):
                framework, prefix = made[0]
                why = f"{name}:{node.lineno} has {node.name}(), which makes a {framework}"
                order = 2 * place(name) + (node.name not in FACTORIES)
                yield Guess(framework, why, settings_of(project, name, f"{node.name}()", prefix), order)


def dashboards(project: Project) -> Iterator[Guess]:
    """Find ``app = Dash(__name__)`` at the top of a module, and the name of its server there."""
    for name, tree in project.sources.items():
        classes = called(tree, "dash", "Dash")
        for node in tree.body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Call) and callee(value) in classes and targets(node):
                app = targets(node)[0]
                why = f"{name}:{node.lineno} has {app} = Dash(…)"
                settings = settings_of(project, name, _server(tree, app, value))
                yield Guess("Dash", why, settings, place(name), (DASH,))


def _server(tree: ast.Module, app: str, made: ast.Call) -> str:
    """Return the name of the Flask application: an argument of Dash, a variable beside it, or an attribute."""
    for keyword in made.keywords:
        if keyword.arg == "server" and isinstance(keyword.value, ast.Name):
            return keyword.value.id
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == f"{app}.server" and targets(node):
            return targets(node)[0]
    return f"{app}.server"


def default_app(project: Project) -> Iterator[Guess]:
    """Find ``@route("/")`` of bottle itself, which adds to the one default application of the interpreter."""
    for name, tree in project.sources.items():
        bottle = _bottle_name(tree)
        routes = {f"{bottle}{verb}" for verb in ("route", "get", "post", "put", "delete", "patch", "view")}
        if bottle is not None and any(
            callee(each) in routes for node in tree.body for each in getattr(node, "decorator_list", ())
        ):
            settings = {**settings_of(project, name, f"{bottle}default_app()"), "mode": "spawned"}
            note = "Bottle has one default application for the whole interpreter, so no other site may share it."
            yield Guess("Bottle", f"{name} has routes of Bottle's default application", settings, place(name), (note,))


def _bottle_name(tree: ast.Module) -> str | None:
    """Return the text before ``default_app`` in a module that imports it: ``bottle.`` or ""; None in all others."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "bottle":
                    return f"{alias.asname or alias.name}."
        own = {alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias) and not alias.asname}
        if isinstance(node, ast.ImportFrom) and node.module == "bottle" and own & {"*", "default_app"}:
            return ""
    return None


def webpy(project: Project) -> Iterator[Guess]:
    """Find ``app = web.application(urls, globals())``, whose ``app.wsgifunc()`` makes the WSGI application."""
    for name, tree in project.sources.items():
        made = called(tree, "web", "application")
        for node in tree.body:
            if isinstance(node, ast.Assign) and callee(node.value) in made and targets(node):
                app = targets(node)[0]
                calls = (each for each in tree.body if isinstance(each, ast.Assign))
                named = (targets(each) for each in calls if callee(each.value) == f"{app}.wsgifunc")
                served = next(itertools.chain.from_iterable(named), f"{app}.wsgifunc()")
                why = f"{name}:{node.lineno} has {app} = web.application(…)"
                yield Guess("web.py", why, settings_of(project, name, served), place(name))


def cherrypy(project: Project) -> Iterator[Guess]:
    """Find an application that is mounted or made; a script that starts its server runs as one, on another port."""
    for name, tree in project.sources.items():
        made = called(tree, "cherrypy", "Application") | called(tree, "cherrypy", "tree.mount")
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.Expr) and callee(node.value) in made:
                what = callee(node.value)
                tree_ = what.removesuffix(".mount") if what.endswith(".tree.mount") else ""
                served = next(iter(targets(node)), tree_)
                if served:
                    why = f"{name}:{node.lineno} has {what}(…)"
                    yield Guess("CherryPy", why, settings_of(project, name, served), place(name))
                    break
        else:
            yield from cherrypy_script(project, name, tree)


def cherrypy_script(project: Project, name: str, tree: ast.Module) -> Iterator[Guess]:
    """Find a script that calls ``cherrypy.quickstart()``."""
    starts = called(tree, "cherrypy", "quickstart")
    line = next((node.lineno for node in _calls(tree) if callee(node) in starts), 0)
    if line:
        command = f'python3 -c "{_CHERRYPY.format(script=name)}" %PORT'
        yield _script(project, "CherryPy", f"{name}:{line} has cherrypy.quickstart()", command, name)


def nicegui(project: Project) -> Iterator[Guess]:
    """Find scripts that call ``ui.run()``; one with ``ui.run_with()`` has an application of FastAPI."""
    for name, tree in project.sources.items():
        starts = called(tree, "nicegui", "ui.run")
        line = next((node.lineno for node in _calls(tree) if callee(node) in starts), 0)
        if line:
            command = f'python3 -c "{_NICEGUI.format(script=name)}" %PORT'
            yield _script(project, "NiceGUI", f"{name}:{line} has ui.run()", command, name)


def gradio(project: Project) -> Iterator[Guess]:
    """Find scripts that import gradio and launch something."""
    for name, tree in project.sources.items():
        line = next((node.lineno for node in _calls(tree) if callee(node).endswith(".launch")), 0)
        if line and _imports(tree, "gradio"):
            variables = "GRADIO_SERVER_NAME=127.0.0.1 GRADIO_SERVER_PORT=%PORT"
            why = f"{name}:{line} launches a Gradio application"
            yield _script(project, "Gradio", why, f"env {variables} python3 {_quoted(name)}", name)


def streamlit(project: Project) -> Iterator[Guess]:
    """Find scripts that import streamlit; those in ``pages`` belong to another script."""
    for name, tree in project.sources.items():
        if _imports(tree, "streamlit") and "pages" not in name.split(os.sep)[:-1]:
            command = f"python3 -m streamlit run {_quoted(name)} --server.address 127.0.0.1 --server.port %PORT"
            why = f"{name} imports streamlit"
            yield _script(project, "Streamlit", why, f"{command} --server.headless true", name)


def _script(project: Project, framework: str, why: str, command: str, name: str) -> Guess:
    settings = {"location": project.folder, "command": command}
    order = 10 * name.count(os.sep) + rank(os.path.basename(name).removesuffix(".py"), USUAL_SCRIPTS)
    return Guess(framework, why, settings, order, (OWN_SERVER,))


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _imports(tree: ast.Module, module: str) -> bool:
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", None) or alias.name for node in imports for alias in node.names]
    return any(name.partition(".")[0] == module for name in names)


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name


#: one for each kind, in the order in which they are tried
_FINDERS: tuple[Callable[[Project], Iterable[Guess]], ...] = (
    managed,
    paste,
    moya,
    wsgi_files,
    entry_modules,
    dashboards,
    objects,
    factories,
    webpy,
    cherrypy,
    nicegui,
    gradio,
    streamlit,
    default_app,
    plain,
)


def guess(project: Project) -> tuple[Guess, tuple[Guess, ...]]:
    """Return the best guess at what serves the project, and the other ones.

    Raises:
        NoGuess: nothing fits, or several guesses fit equally well.
    """
    seen = [sorted(finder(project), key=lambda each: each.rank) for finder in _FINDERS]
    for found in filter(None, seen):
        best = [each for each in found if each.rank == found[0].rank]
        if len({tuple(each.settings.items()) for each in best}) > 1:
            several = "; ".join(f"{each.what} ({each.why})" for each in best[:5])
            raise NoGuess(f"{project.folder}: several things fit: {several}; choose one with --application")
        every = {tuple(each.settings.items()): each for guesses in reversed(seen) for each in reversed(guesses)}
        every.pop(tuple(best[0].settings.items()))
        return best[0], tuple(reversed(every.values()))
    raise NoGuess(f"{project.folder}: {_nothing(project)}")


def _nothing(project: Project) -> str:
    remedy = "name the application with --application, such as blog.wsgi:application"
    if project.unreadable:
        return f"{project.unreadable[0]} is not valid Python here, and nothing else fits; {remedy}"
    if not project.sources:
        return f"there is no Python file; give the folder of the project, or {remedy}"
    kinds = "Django, Paste, Moya, .wsgi, Flask, Dash, FastAPI, Starlette, Bottle, CherryPy, web.py or plain WSGI"
    return f"nothing in {len(project.sources)} Python files looks like {kinds}; {remedy}"
