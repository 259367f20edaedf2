"""A terminal of a command's own, between it and a person's: so that job control works inside, and none outside.

The command must not have ours. It would be in no session with it, so without job control, and what is typed as Ctrl-C
would end us; and whoever holds a terminal can type into it (ioctl_tty(2), TIOCSTI). It is one of the container's, so
tty(1) and all that asks for the terminal's name find it in there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import termios
import threading
import tty
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.process import Process
from pytest_poorcontainer.container.request import user_text
from pytest_poorcontainer.container.window import copy_window
from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from pytest_poorcontainer.container.request import Argv, Environment
    from pytest_poorcontainer.lab.agent import Agent
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Terminal", "shell"]

_IN, _OUT, _ERR = 0, 1, 2
_CHUNK = 1 << 16
_PATIENCE = 0.5  # seconds for the last output: what was left in the background may print for ever
_LOOK = 0.2  # seconds between two looks at the size of the window, where SIGWINCH is somebody else's
_BY_SIGNAL = 128  # as in POSIX, Shell and Utilities 2.8.2


class Terminal:
    """A pseudo-terminal of a container's, and the thread that carries what is typed to it and what it prints back.

    ``streams`` are the command's stdin, stdout and stderr; ``hung_up`` is set when the person's terminal has gone.
    """

    def __init__(
        self,
        agent: Agent,
        user: str | None,
        notify: Callable[[], None],
        person: tuple[int, int] = (_IN, _OUT),
        stderr: int | None = None,
    ) -> None:
        """Open it for a user, with the modes and the size of the person's, which is open at two descriptors.

        ``notify`` is called when that one hangs up; ``stderr`` is the command's when it is not the terminal. Raises
        :class:`LabError`.
        """
        self._notify = notify
        self._typed, self._seen = person
        self.hung_up = False
        self._modes = termios.tcgetattr(self._typed)
        self._master, self._slave = agent.terminal(user)
        self._stop, self._stopper = os.pipe()
        os.set_blocking(self._master, False)
        self.streams = (self._slave, self._slave, self._slave if stderr is None else stderr)
        self._thread = threading.Thread(target=self._carry, name="poor-container-terminal", daemon=True)
        termios.tcsetattr(self._slave, termios.TCSANOW, self._modes)
        self.resize()

    @contextlib.contextmanager
    def carried(self) -> Iterator[None]:
        """Carry while the block runs; then print what is left, and give the person's terminal back as it was.

        For when the command has started: what goes wrong before is printed on an ordinary terminal.
        """
        try:
            self.make_raw()
            self._thread.start()
            yield
            os.write(self._stopper, b"x")
            # Our own slave stays open until now: so the end is what we are told, not that nobody has it open.
            self._thread.join(2 * _PATIENCE)
        finally:
            self.give_back()

    def give_back(self) -> None:
        """Give the person's terminal the modes that it had."""
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._typed, termios.TCSADRAIN, self._modes)

    def make_raw(self) -> None:
        """Let every key through: the command's terminal gives it a meaning. Again after the shell had stopped us."""
        # Not TCSAFLUSH: what was typed ahead is for the command.
        with contextlib.suppress(termios.error):
            tty.setraw(self._typed, termios.TCSADRAIN)

    def resize(self) -> None:
        """Tell the command's terminal the size of the person's; the kernel sends its foreground SIGWINCH."""
        with contextlib.suppress(OSError):
            copy_window(self._typed, self._master)

    def close(self) -> None:
        """Close it: who still has it open sees a hang-up. The thread has ended, or will with us."""
        if not self._thread.is_alive():
            for fd in (self._master, self._slave, self._stop, self._stopper):
                os.close(fd)

    def _carry(self) -> None:
        try:
            self._exchange()
        except (OSError, EOFError):
            self.hung_up = True
            self._notify()

    def _exchange(self) -> None:
        """Carry both ways until told to stop. Raises OSError or EOFError when the person's terminal has gone."""
        typed = b""
        while True:
            waiting = select.poll()
            waiting.register(self._stop, select.POLLIN)
            waiting.register(self._master, select.POLLIN | (select.POLLOUT if typed else 0))
            if not typed:  # else it waits in the person's terminal, which is the place for it
                waiting.register(self._typed, select.POLLIN)
            ready = dict(waiting.poll())
            if self._stop in ready:
                self._finish()
                return
            if ready.get(self._master, 0) & select.POLLIN:
                self._print()
            if ready.get(self._master, 0) & select.POLLOUT:
                with contextlib.suppress(BlockingIOError):
                    typed = typed[os.write(self._master, typed) :]
            if self._typed in ready:
                typed = os.read(self._typed, _CHUNK)
                if not typed:
                    raise EOFError

    def _print(self) -> bool:
        """Print what the command has written; return whether there was something."""
        try:
            data = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return False
        while data:
            try:
                data = data[os.write(self._seen, data) :]
            except BlockingIOError:  # noqa: PERF203 - somebody made the person's terminal so
                select.select((), (self._seen,), ())
        return True

    def _finish(self) -> None:
        deadline = now() + _PATIENCE
        while self._print() and now() < deadline:
            pass


def shell(handle: Handle, argv: Argv | None, user: str | int | None, env: Environment | None) -> int:
    """Run a shell or a command in the test's terminal; see ``Container.shell``."""
    handle.check()
    given = {os.fsencode(name): value for name, value in (env or {}).items()}
    mark = "#" if user in (None, 0, "0", "root") else "$"
    usual = {b"TERM": os.environb.get(b"TERM", b"xterm"), b"PS1": os.fsencode(f"{handle.name}:$PWD{mark} ")}
    with _person() as person:
        terminal = Terminal(handle.agent, None if user is None else user_text(user), _nobody, person)
        try:
            process = _started(handle, argv, {**usual, **given}, user, terminal)
            with process, _given_back_when_killed(terminal), terminal.carried():
                code = _wait(process, terminal)
        finally:
            terminal.close()
    return _BY_SIGNAL - code if code < 0 else code


def _started(
    handle: Handle, argv: Argv | None, env: Environment, user: str | int | None, terminal: Terminal
) -> Process:
    stdin, stdout, stderr = terminal.streams
    start = functools.partial(
        Process, handle, env=env, user=user, stdin=stdin, stdout=stdout, stderr=stderr, terminal=True
    )
    if argv is not None:
        return start(argv)
    try:
        return start(["bash"])  # which can edit its command line
    except FileNotFoundError:
        return start(["/bin/sh"])


def _nobody() -> None:
    """Tell nobody: who waits looks himself."""


def _wait(process: Process, terminal: Terminal) -> int:
    waiting = select.poll()
    waiting.register(process.fileno(), select.POLLIN)
    while not (waiting.poll(_LOOK * 1000) and process.poll() is not None):
        terminal.resize()
        if terminal.hung_up:
            return process.end()
    return process.wait()


@contextlib.contextmanager
def _person() -> Iterator[tuple[int, int]]:
    """Yield descriptors of the terminal of whoever runs the test: to read from, and to write to.

    Not standard input and output, which pytest has taken away from tests, but by its name (tty(4)).
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        raise UsageError("shell() needs the terminal, which the workers of pytest-xdist share: run the test with -n 0")
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        if not (os.isatty(_IN) and os.isatty(_OUT)):
            why = "shell() needs a terminal, and this process has none: run the test by hand, in one"
            raise UsageError(why) from None
        yield _IN, _OUT
        return
    try:
        if os.tcgetpgrp(fd) != os.getpgrp():
            raise UsageError(
                "shell() needs the terminal, and this process runs in the background: bring it to the front"
            )
        yield fd, fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _given_back_when_killed(terminal: Terminal) -> Iterator[None]:
    """Let the signals that would end us at once give the terminal back first."""

    def ended(number: int, _frame: FrameType | None) -> None:
        terminal.give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    deadly = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        deadly = []  # only the main thread may say what a signal does, and there it may interrupt anything
    for number in deadly:
        signal.signal(number, ended)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)
