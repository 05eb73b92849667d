"""One backend: its state, its process, its one deadline."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from multisite.config.model import Site
from multisite.supervisor import lifecycle
from multisite.supervisor.lifecycle import Action, Event, State
from multisite.supervisor.loop import Loop
from multisite.supervisor.notify import Channel, Said
from multisite.supervisor.process import descriptors, kernel
from multisite.supervisor.process.descriptors import DescriptorLimits
from multisite.supervisor.process.kernel import Child
from multisite.supervisor.process.preloader import ForkChannel, Preloader
from multisite.supervisor.process.preloaders import Preloaders
from multisite.supervisor.process.sitelog import JOURNEY, Journey, Output, SiteLog
from multisite.supervisor.process.spawn import spawn
from multisite.supervisor.process.spec import Given, Launch, packed, unpacked
from multisite.supervisor.reexec import DESCRIPTOR, Form, Handed, converted, given, kept, taken
from multisite.supervisor.reexec import State as Packed

FORK_WITHIN = 5.0  # seconds; after that the preloader counts as not answering
BY_SITES = frozenset({"BUSY"})  # what a site that our runner runs may report
KILL_EVERY = 5.0  # seconds between two SIGKILLs, for a process that the kernel holds


CHANNEL = Form(
    lambda channel, keep: channel.pack(keep) if channel else None,
    lambda told, _made: Channel.taken_over(told) if told else None,
)


@dataclass
class Exit:
    """How a process ended, and in which state of its life."""

    state: State
    reason: str
    code: int | None  # exit status; negative: the signal; None: there was no process, or it never ran its program
    served: float  # seconds that it was RUNNING
    answered: bool = False  # it, or one beside it, has answered a request, as far as is known
    lacking: bool = False  # the machine, or our own limits, had no room for it


class Backend(Handed):
    """A process of a site, from before it exists until after it has ended.

    Attributes:
        slot: its place among the processes of its site, from 0.
        kind: why it is started, as one of `multisite.sites.tally.KINDS`; "": it is not started, only planned.
        child: its process, while it owns one.
        serial: grows with each backend; it marks what the process leaves behind.
        obsolete: why it must be replaced ("" if it need not be): it serves until its successor is ready.
        memory: bytes that it and its session used at the last measurement; 0: none yet.
        answered_before: how many answers its place on the scoreboard had counted before it.
        ours: it is our own runner.
        told: it reports itself when it is ready.
        tried: a test program runs first and then becomes the server (`multisite.runner.trial`); on_trial: the test is
            not over.
        graceful: on SIGTERM it finishes its requests and exits.
        leaves: it has reported that it ends, after answering all that it had accepted.
        status: what it last reported of its start; refusal: why it will not serve, as it reported.
        is_busy: it has reported that it is at work (`multisite.supervisor.site.work`).
        hung: which of its requests made no progress, as our runner reported; "" for none.
    """

    KEPT = kept(
        "deadline since reason obsolete started ready_at status refusal hung _failure_text memory ours",
        "is_busy told graceful tried on_trial lessons reports answered_before leaves kind",
        launch=converted(lambda how: packed(how) if how else "", lambda told: unpacked(told) if told else None),
        child=converted(lambda child: child.pid if child else 0, lambda pid: Child(pid) if pid else None).at("pid"),
        state=converted(lambda state: state.value, State),
        journey=JOURNEY,
        _failure=DESCRIPTOR,
        _channel=CHANNEL,
        _site_channel=CHANNEL,
        _output=given(lambda output, keep: output.pack(keep) if output else None),
    )
    ANEW = (
        *("site", "slot", "serial", "exit", "_loop", "_tell", "_notified"),
        *("_fork", "_fork_due", "_preloader", "_lost"),  # forks are over before anything is passed on
    )

    def __init__(
        self,
        site: Site,
        slot: int,
        serial: int,
        loop: Loop,
        tell: Callable[[str], None],
        notified: Callable[[Backend, Said], None],
    ) -> None:
        self.site, self.slot, self.serial = site, slot, serial
        self.state = State.STOPPED
        self.kind = ""
        self.child: Child | None = None
        self.deadline: float | None = None
        self.since = loop.now()
        self.reason = ""
        self.obsolete = ""
        self.memory = self.answered_before = 0
        self.is_busy = False
        self.ours = self.told = self.graceful = self.tried = self.on_trial = self.leaves = False
        self.journey = Journey(loop.now())
        self.lessons = 0  # how often it has reported its modules
        self.reports = 0  # how often it has reported what its examination found
        self.launch: Launch | None = None
        self.started = 0.0
        self.ready_at = 0.0  # when it counts as ready, if nothing else can show it
        self.status = self.refusal = self.hung = ""
        self.exit: Exit | None = None
        self._loop = loop
        self._tell, self._notified = tell, notified
        self._output: Output | None = None
        self._channel: Channel | None = None
        self._site_channel: Channel | None = None  # of the site itself; our runner has the other one
        self._failure = -1
        self._failure_text = ""
        self._fork: ForkChannel | None = None
        self._fork_due = 0.0
        self._preloader: Preloader | None = None
        self._lost: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        seconds = self._loop.now() - self.since
        return f"<Backend {self.site.name}.{self.slot} {self.state.name} pid={self.pid} for {seconds:.1f}s>"

    @property
    def pid(self) -> int:
        """Its process, 0 while it owns none."""
        return self.child.pid if self.child else 0

    @property
    def alive(self) -> bool:
        """Whether it owns a process."""
        return self.state in lifecycle.OWNS_PROCESS

    @property
    def is_unborn(self) -> bool:
        """Whether a preloader has been asked for its process, and has not made it yet."""
        return self._fork is not None and not self.pid

    @property
    def maker(self) -> Preloader | None:
        """The preloader that makes its process, or has made it."""
        return self._preloader

    @property
    def leaving(self) -> bool:
        """Whether it has been asked to end."""
        return self.state in (State.DRAINING, State.STOPPING)

    def feed(self, event: Event, reason: str = "", delay: float = 0.0) -> None:
        """Let `event` happen: the table determines what follows; nothing else sets the state."""
        old = self.state
        self.state, action = lifecycle.step(old, event)
        now = self._loop.now()
        if self.state is not old:
            self.since = now
            self.reason = reason or self.reason
            self.deadline = None
        self._act(action, now, delay)
        if self.state is not old:
            said = (
                f"{self.state.value}" + (f" ({reason})" if reason else "") + (f", pid {self.pid}" if self.pid else "")
            )
            self._tell(said)

    def _act(self, action: Action, now: float, delay: float) -> None:
        if action is Action.SPAWN:
            self.deadline = now + self.site.start_timeout
        elif action is Action.SERVE:
            self.started = now
            self.journey.leave(now)
        elif action is Action.DRAIN:
            self.deadline = now + self.site.drain_timeout
            if self.graceful:
                self.terminate()
        elif action is Action.TERMINATE:
            self.deadline = now + self.site.stop_timeout
            self.terminate()
            self.thaw()
        elif action is Action.KILL:
            self.deadline = now + KILL_EVERY
            self.kill()
        elif action is Action.WAIT:
            self.deadline = now + delay

    def terminate(self) -> None:
        """Ask its process to end."""
        if self.child:
            self.child.terminate()

    def kill(self) -> None:
        """End its process and the group of that at once."""
        if self.child:
            self.child.kill()

    def freeze(self) -> None:
        """Keep its process from accepting another connection, until `thaw`."""
        if self.child:
            self.child.freeze()

    def thaw(self) -> None:
        """Let its process continue."""
        if self.child:
            self.child.thaw()

    # For its successor

    def adopt(self, state: Packed, log: SiteLog) -> None:
        """Continue where another program stopped, with what the process prints in this log."""
        self.take_over(state)
        if state["output"]:
            self._output = Output(taken(state["output"]["descriptor"]), log, self.journey.tail)
            self._output.take_over(state["output"])
        self._watch()

    # Its process

    def fork(
        self, launch: Launch, given: Given, log: SiteLog, preloaders: Preloaders, lost: Callable[[], None]
    ) -> bool:
        """Ask a preloader to make the process; False if it needs a plain start.

        Args:
            launch: how to start it.
            given: the descriptors that it gets.
            log: of the site.
            preloaders: one of them may make it.
            lost: is called if it turns out later that there is no process.
        """
        preloader = preloaders.for_start(launch)
        if isinstance(preloader, str):
            self.journey.way = f"plain start: {preloader}"
            return False
        try:
            with self._speaking(launch, given) as all_given:
                channel, output = preloader.fork(launch, all_given)
        except OSError as error:
            self._close_channel()
            self.journey.way = f"plain start: cannot ask the preloader: {error.strerror}"
            return False
        self.launch, self._preloader, self._lost = launch, preloader, lost
        self.journey.way = f"forked from process {preloader.pid}"
        self.journey.enter("fork", self._loop.now())
        self._fork, self._fork_due = channel, self._loop.now() + FORK_WITHIN
        self._loop.watch(channel, lambda _events: self.read_fork())
        self._be(launch)
        self._output = Output(output, log, self.journey.tail)
        self._watch()
        return True

    def _be(self, launch: Launch) -> None:
        self.ours, self.told, self.graceful = bool(launch.job), launch.told, launch.graceful
        self.tried = self.on_trial = launch.tried

    def told_of_start(self, variables: Mapping[str, str]) -> None:
        """Handle what our runner, or a test start, reports of its start (`multisite.runner.report`)."""
        self.status = variables.get("STATUS", self.status)[:1000]
        if variables.get("FAILED") == "1" and (self.ours or self.tried):
            self.refusal = self.status

    def read_fork(self) -> None:
        """Handle the result of a fork."""
        channel, preloader = self._fork, self._preloader
        if not channel or not preloader:
            return
        channel.read_messages()
        if channel.child and not self.child:
            self.child = channel.child
            preloader.children.add(self.pid)
            if self.state is not State.STARTING:
                self.kill()
            self._watch_channel()
        if channel.over:
            self._fork_ended(channel)

    def _fork_ended(self, channel: ForkChannel) -> None:
        self._failure_text = channel.failure
        self._fork = None
        self._loop.forget(channel)
        channel.close()
        if self.pid:
            self.journey.enter("start up", self._loop.now())
        else:
            self.journey.way = f"plain start: {channel.refused or 'the preloader did not make it'}"
            self._close_output()
            self._close_channel()
            self._lost()

    def end_fork(self, now: float = float("inf")) -> Preloader | None:
        """Stop waiting for a process that should have existed by `now`; returns the preloader that did not make it."""
        if not self._fork or self.pid or now < self._fork_due:
            return None
        self._fork.give_up()
        self.read_fork()
        return self._preloader

    def spawn(self, launch: Launch, given: Given, limits: DescriptorLimits, log: SiteLog) -> None:
        """Make the process.

        Raises:
            OSError: none can be made.
        """
        self.launch = launch
        self._be(launch)
        self.journey.enter("fork and run", self._loop.now())
        with self._speaking(launch, given) as all_given:
            spawned = spawn(launch, all_given, limits)
        self.child = spawned.child
        self._failure = spawned.failure
        self._output = Output(spawned.output, log, self.journey.tail)
        self._watch()

    @contextlib.contextmanager
    def _speaking(self, launch: Launch, given: Given) -> Iterator[Given]:
        """Make the channel of a process that is about to be made; yields the further descriptors that it gets.

        Raises:
            OSError: it cannot be made.
        """
        self._close_channel()
        descriptors.claim(2)
        if not launch.job:
            self._channel = Channel.at(launch.notify, launch.identity) if launch.notify else None
            yield replace(given, board=-1)
            return
        self._channel, theirs = Channel.pipe()
        if launch.notify:
            with contextlib.suppress(OSError):  # a site that cannot report that it is at work still serves
                self._site_channel = Channel.at(launch.notify, launch.identity)
        try:
            yield replace(given, notify=theirs)
        finally:
            os.close(theirs)

    def _watch(self) -> None:
        if self._failure >= 0:
            self._loop.watch(self._failure, lambda _events: self._runs())
        if self._output:
            self._loop.watch(self._output, lambda _events: self._read())
        if self.child:
            self._watch_channel()

    @property
    def _channels(self) -> list[Channel]:
        return [channel for channel in (self._channel, self._site_channel) if channel]

    def _watch_channel(self) -> None:
        for channel in self._channels:
            if not channel.is_over:
                self._loop.watch(channel, lambda _events, channel=channel: self._listen(channel))  # type: ignore[misc]

    def _listen(self, channel: Channel) -> None:
        """Take what it has reported; more than its share of a second waits. A site does not speak for our runner."""
        for said in channel.receive(self._loop.now()):
            only = {key: said[key] for key in BY_SITES & said.keys()} if channel is self._site_channel else said
            self._notified(self, only)
        if channel.is_over or channel.waits_until:
            self._loop.forget(channel)

    def _close_channel(self) -> None:
        for channel in self._channels:
            self._loop.forget(channel)
            channel.close()
        self._channel = self._site_channel = None

    def _runs(self) -> None:
        """Note that the process has become its program, or remember why it could not."""
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(self._failure, 4096)
        self._failure_text = data.decode("utf-8", "replace")
        self._close_failure()
        if not data:
            self.journey.enter("start up", self._loop.now())

    def _close_failure(self) -> None:
        if self._failure >= 0:
            self._loop.forget(self._failure)
            os.close(self._failure)
            self._failure = -1

    def _read(self) -> None:
        assert self._output
        if not self._output.read(self._loop.now()):
            self._close_output()
        elif self._output.waits_until:
            self._loop.forget(self._output)

    def resume(self, now: float) -> None:
        """Read on where a flood of output, or of reports, was held back."""
        if self._output and not self._loop.watches(self._output) and now >= self._output.waits_until:
            self._loop.watch(self._output, lambda _events: self._read())
        for channel in self._channels if self.child else ():
            if now >= channel.waits_until:
                if channel.has_more:
                    self._listen(channel)
                if not self._loop.watches(channel):
                    self._watch_channel()

    def _close_output(self) -> None:
        if self._output:
            self._loop.forget(self._output)
            self._output.close()
            self._output = None

    def ended(self, status: int) -> Exit:
        """Note the process's end; the caller feeds the event."""
        now = self._loop.now()
        for channel in self._channels:
            self._listen(channel)
        if self._failure >= 0:
            self._runs()
        self.read_fork()
        if self._output:
            self._output.drain(now)
        self._close_output()
        self._close_channel()
        reason = self._failure_text or kernel.describe_end(status)
        served = now - self.started if self.state is not State.STARTING and self.started else 0.0
        code = None if self._failure_text else os.waitstatus_to_exitcode(status)
        self.exit = Exit(self.state, reason, code, served)
        self.child = None
        return self.exit

    def cannot_spawn(self, reason: str, *, lacking: bool = False) -> Exit:
        """Note that there is no process, and give back what it would have reported through."""
        self._close_channel()
        self.exit = Exit(self.state, reason, None, 0.0, lacking)
        return self.exit
