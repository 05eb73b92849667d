"""Scripts that bring a server of their own, and are run by `command`, on the port that they are told."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from multisite.cli.project.sources import USUAL, Guess, Project, called, callee, rank

USUAL_SCRIPTS = ("streamlit_app", "main", "app", "Home", "home", "index", *USUAL)
NOTE = "It brings a server of its own, which is started on a port that multisite chooses (%PORT)."
# Neither of the two reads a port from its environment or its command line, so what starts the server is told.
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


def streamlit(project: Project) -> Iterator[Guess]:
    """Scripts that import streamlit; those in ``pages`` belong to another one."""
    for name, tree in project.sources.items():
        if _imports(tree, "streamlit") and "pages" not in name.split(os.sep)[:-1]:
            command = f"python3 -m streamlit run {_quoted(name)} --server.address 127.0.0.1 --server.port %PORT"
            why = f"{name} imports streamlit"
            yield _guess(project, "Streamlit", why, f"{command} --server.headless true", name)


def gradio(project: Project) -> Iterator[Guess]:
    """Scripts that import gradio and launch something."""
    for name, tree in project.sources.items():
        line = next((node.lineno for node in _calls(tree) if callee(node).endswith(".launch")), 0)
        if line and _imports(tree, "gradio"):
            told = "GRADIO_SERVER_NAME=127.0.0.1 GRADIO_SERVER_PORT=%PORT"
            why = f"{name}:{line} launches a Gradio application"
            yield _guess(project, "Gradio", why, f"env {told} python3 {_quoted(name)}", name)


def nicegui(project: Project) -> Iterator[Guess]:
    """Scripts that call ``ui.run()``; one with ``ui.run_with()`` has an application of FastAPI."""
    for name, tree in project.sources.items():
        starts = called(tree, "nicegui", "ui.run")
        line = next((node.lineno for node in _calls(tree) if callee(node) in starts), 0)
        if line:
            command = f'python3 -c "{_NICEGUI.format(script=name)}" %PORT'
            yield _guess(project, "NiceGUI", f"{name}:{line} has ui.run()", command, name)


def cherrypy_script(project: Project, name: str, tree: ast.Module) -> Iterator[Guess]:
    """A script that calls ``cherrypy.quickstart()``."""
    starts = called(tree, "cherrypy", "quickstart")
    line = next((node.lineno for node in _calls(tree) if callee(node) in starts), 0)
    if line:
        command = f'python3 -c "{_CHERRYPY.format(script=name)}" %PORT'
        yield _guess(project, "CherryPy", f"{name}:{line} has cherrypy.quickstart()", command, name)


def _guess(project: Project, framework: str, why: str, command: str, name: str) -> Guess:
    settings = {"location": project.folder, "command": command}
    order = 10 * name.count(os.sep) + rank(os.path.basename(name).removesuffix(".py"), USUAL_SCRIPTS)
    return Guess(framework, why, settings, order, (NOTE,))


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _imports(tree: ast.Module, module: str) -> bool:
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", None) or alias.name for node in imports for alias in node.names]
    return any(name.partition(".")[0] == module for name in names)


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name
