"""``multisite restart``, ``stop``, ``start``, ``reload`` and ``supervise``: start and end processes.

To restart or reload an application in the workers, a command sets a file's time, which every worker sees within a
second.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from multisite.cli import complete
from multisite.cli.group import fenced
from multisite.cli.output import say, say_json, say_problems, waiting
from multisite.cli.session import Named, Session, pass_session
from multisite.cli.trialruns import stamp
from multisite.errors import MultisiteError

if TYPE_CHECKING:
    from multisite.config.model import Site

RESTART = """\b
Examples:
  multisite restart blog
  multisite restart blog shop
  multisite restart --wait blog
  multisite restart all
  multisite restart 'demo-*'
"""
START = """\b
Examples:
  multisite start blog
  multisite start all
"""
STOP = """\b
Examples:
  multisite stop blog
  multisite stop all
"""
RELOAD = """\b
Examples:
  multisite reload
  multisite reload blog
  multisite reload --supervisor
"""
SUPERVISE = """\b
Examples:
  multisite supervise
  systemd-run --property=Type=notify multisite --home /srv/sites supervise
"""
NOTHING = "it was not running"


@click.command(epilog=RESTART, short_help="Restart sites.")
@click.option("--wait", is_flag=True, help="Wait until the new version is serving or has failed.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete.sites)
@pass_session
def restart(session: Session, wait: bool, names: tuple[str, ...]) -> None:
    """Restart sites: load their applications again. Other sites are not affected.

    If the new code cannot be loaded, the old version keeps serving. The name of a hosting site means all its hosts; you
    can also name one host. `all` means all enabled sites, a quoted wildcard those that match.

    With --wait, the command prints the outcome; the exit code is 1 if the new version failed. If a site is not running,
    a process starts and stays to serve the next request. If a site shares the workers' interpreter or no supervisor is
    running, the site is first started once in a test process, as with `check --boot`.
    """
    sites = [named.site for named in session.chosen(names)]  # all of them, before the first restart
    if wait:
        from multisite.cli.trialruns import restart_and_wait

        return restart_and_wait(session, sites)
    _each(session, "restarted", list, {site.name: partial(_restart, session, site) for site in sites})


def _each(session: Session, key: str, form: type, steps: Mapping[str, Callable[[], Any]]) -> None:
    """Take a step for each site, and print the result or the reason for the failure; exit code 1 if one failed.

    Args:
        key: key of the document for the results, in the form `list` (names) or `dict`.
        steps: functions that return the result, or the supervisor's answer with it.
    """
    failed: dict[str, str] = {}
    done = {name: fenced(session, name, step, partial(failed.setdefault, name)) for name, step in steps.items()}
    if session.as_json:
        without = {name: each for name, each in done.items() if name not in failed}
        say_json({key: form(without), **({"failed": failed} if failed else {})})
    for name, each in () if session.as_json else done.items():
        what = each if isinstance(each, str) else each["done"]
        say(f"multisite: {name}: {what}" if name in failed else f"{name}: {what}", err=name in failed)
    if failed:
        raise SystemExit(1)


def _restart(session: Session, site: Site) -> str:
    """Restart the processes of a site, or its application in the workers."""
    if site.host:
        answer = session.ask("restart", site=site.template, host=site.host)
        return str(answer["done"]) if answer else NOTHING
    if session.is_in_workers(site.name):
        stamp(site.file)
        return "a process is starting; the workers keep serving the old version until it is ready"
    if session.is_held(site.name):
        answer = session.ask("restart", site=site.name)
        if answer and session.known[site.name]["pids"]:
            return "a new process is starting; the old one keeps serving until it is ready"
        if answer:
            return str(answer["done"])
    stamp(site.file)
    return "every worker loads it again within a second"


@click.command(epilog=STOP, short_help="Stop the processes of sites.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete.sites)
@pass_session
def stop(session: Session, names: tuple[str, ...]) -> None:
    """Stop the processes of sites after their current requests; the next request starts them again.

    A site that shares the workers' interpreter has no process; use dissite to take it out of service. The name of a
    hosting site means all its hosts; you can also name one host. `all` means all enabled sites, a quoted wildcard those
    that match.
    """
    sites = session.chosen(names)
    _each(session, "stopped", dict, {named.site.name: partial(_stop, session, named) for named in sites})


def _stop(session: Session, named: Named) -> dict[str, Any]:
    """Stop a site, and return what was stopped."""
    from multisite.status.report import judge

    answer = session.ask("stop", **named.request) or {"done": NOTHING}
    if answer["done"] == NOTHING and not named.site.host and judge(session, named.site).placement == "in-process":
        return {**answer, "done": "it shares the workers' interpreter and has no process; use dissite to disable it"}
    return answer


@click.command(epilog=START, short_help="Start sites before their first request.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete.sites)
@pass_session
def start(session: Session, names: tuple[str, ...]) -> None:
    """Start the processes of enabled sites now; otherwise the first request starts them.

    `all` means all enabled sites, a quoted wildcard those that match.
    """
    sites = session.chosen(names)
    _each(session, "started", dict, {named.site.name: partial(_start, session, named) for named in sites})


def _start(session: Session, named: Named) -> dict[str, Any]:
    """Start a process by connecting to the socket of the site, as a request does."""
    from multisite.status.report import judge

    if "%" in named.site.location:
        return {"done": "it is a hosting site, with a site for each host; name one of its hosts"}
    report = judge(session, named.site) if not named.site.host else None
    if report and report.state == "broken" and (report.faults or not report.placement):  # another try may succeed
        raise MultisiteError(f"it cannot start: {report.problems[0].reason if report.problems else report.reason}")
    if report and report.placement in ("proxy", "in-process"):
        is_proxy = report.placement == "proxy"
        where = "its servers are not ours to start" if is_proxy else "it shares the workers' interpreter"
        return {"done": f"{where}, so there is no process to start"}
    if session.known.get(named.site.name, {}).get("pids"):
        return {"done": "it is already running"}
    answer = session.ask("ensure", **named.request)
    if not answer:
        return {"done": "no supervisor is running; the site starts at its first request"}
    with socket.socket(socket.AF_UNIX) as request:
        request.connect(answer["socket"])
    return {"done": "starting"}


@click.command(epilog=RELOAD, short_help="Read the whole configuration again.")
@click.option("--supervisor", is_flag=True, help="Make the supervisor run the newly installed program.")
@click.option("--wait", is_flag=True, help="With NAME: wait until the new version is serving or has failed.")
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=complete.sites)
@pass_session
def reload(session: Session, supervisor: bool, wait: bool, names: tuple[str, ...]) -> None:
    """Make every worker read moya.conf and all site files again; with NAME, restart those sites, as `restart` does.

    If a file has an error, the last good version of its site stays in service; the errors are printed, and the exit
    code is 1.

    Use --supervisor after an upgrade of multisite: the supervisor runs the new program in the same process. The
    processes of the sites keep running, and no request is lost. If the new program does not start, the old one stays.
    """
    if supervisor and names:
        raise click.UsageError("--supervisor takes no NAME")
    if wait and not names:
        raise click.UsageError("--wait needs NAME: it waits for the new version of a site")
    if names:
        sites = [named.site for named in session.chosen(names)]
        if wait:
            from multisite.cli.trialruns import restart_and_wait

            return restart_and_wait(session, sites)
        return _each(session, "restarted", list, {site.name: partial(_restart, session, site) for site in sites})
    if supervisor:
        return renew(session)
    problems = session.catalogue.problems
    stamp(session.home.file)
    session.ask("reload")
    if session.as_json:
        say_json({"reloaded": session.home.file, "problems": [problem.as_dict() for problem in problems]})
    else:
        say_problems(problems)
        say(f"every worker reads {session.home.path} again within a second")
    if any(problem.severity == "error" for problem in problems):
        raise SystemExit(1)


def renew(session: Session) -> None:
    """Make the supervisor run the newly installed program.

    Raises:
        SupervisorError: the new program does not start, and the old one stays.
    """
    from multisite.control.client import NotRunning
    from multisite.supervisor.upgrade import PATIENCE

    try:
        with waiting("waiting for the new supervisor program"):
            answer = session.client.ask({"do": "upgrade"}, within=2 * PATIENCE)
    except NotRunning:
        answer = {"done": "no supervisor is running; the next one will run the newly installed program"}
    if session.as_json:
        return say_json(answer)
    say(f"{answer['done']}{', version ' + answer['version'] if 'version' in answer else ''}")


def touch(path: str) -> None:
    """Set the time of `path` to now, creating it, never through a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.utime(descriptor)
    finally:
        os.close(descriptor)


@click.command(epilog=SUPERVISE, short_help="Run the supervisor in the foreground.")
@pass_session
def supervise(session: Session) -> None:
    """Run the supervisor in the foreground, for systemd (Type=notify). SIGTERM ends it and all its
    sites when their requests are answered, or after the longest drain_timeout; meanwhile /health answers 503. SIGINT
    ends it at once.

    If you do not run it, the first worker that needs a supervisor starts one, which exits with the last server.
    """
    home = session.home.path  # an unusable home is reported before anything is forked
    from multisite.supervisor.guard import guard

    ready = guard()
    from multisite.supervisor.run import run

    raise SystemExit(run(home, foreground=True, ready=ready))
