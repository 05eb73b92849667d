"""A Flask application with two pages."""

from __future__ import annotations

from flask import Flask, render_template

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return render_template("index.html")


@app.get("/greet/<name>")
def greet(name: str) -> str:
    return render_template("greet.html", name=name)
