"""A command in a container, in the manner of subprocess.Popen."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import subprocess
import threading
from typing import IO, TYPE_CHECKING, Any, cast

from pytest_poorcontainer.container.control import Control, is_signal
from pytest_poorcontainer.container.request import arguments, pack_request, passed, search_path, user_text
from pytest_poorcontainer.container.streams import Exchange, Screen, Streams, TerminalStreams
from pytest_poorcontainer.container.window import set_window, window
from pytest_poorcontainer.errors import LabDied, LabError, UsageError
from pytest_poorcontainer.lab.clock import now
from pytest_poorcontainer.lab.protocol import Field, Op

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.container.request import Argv, Environment, PassFds, Text
    from pytest_poorcontainer.container.streams import Target
    from pytest_poorcontainer.container.window import Size
    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.lab.protocol import Message

__all__ = ["Process"]

_PATIENCE_AT_START = 20.0  # seconds
_PATIENCE_AT_END = 5.0  # seconds; the watcher itself gives up, and says why, after four
_KILLED = 9  # the raw wait status of what SIGKILL ended
_MODES = ("wb", "rb", "rb")
_TERM = b"xterm"  # what every terminal database has, and docker says too
_END_OF_INPUT = b"\x04"


class Process:
    """A command that runs in a container: Popen's methods and attributes, and :meth:`end`.

    Made by ``Container.popen``. ``args`` is what was asked for; ``pid`` the command's process as seen from here (usable
    with ``os.kill``, ``/proc`` and psutil), ``pid_inside`` as seen in the container; ``returncode`` is None until
    :meth:`poll`, :meth:`wait` or :meth:`communicate` have seen its end, and then negative for a signal. ``stdin``,
    ``stdout`` and ``stderr`` are file objects of the pipes that were asked for. Text is UTF-8 unless ``encoding`` says
    otherwise, for that is what LANG says inside.

    It differs from Popen in that stdin is /dev/null unless given, that the environment is not pytest's, that leaving a
    ``with`` block by an exception ends the command and all it started, and that :meth:`terminate` is not :meth:`end`.
    Safe to use from several threads at once, as Popen is.
    """

    _screen: Screen | None = None
    _exchange: Exchange | None = None

    def __init__(
        self,
        handle: Handle,
        argv: Argv,
        *,
        env: Environment | None = None,
        cwd: Text | None = None,
        user: str | int | None = None,
        stdin: Target = None,
        stdout: Target = None,
        stderr: Target = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        universal_newlines: bool | None = None,
        bufsize: int = -1,
        pass_fds: PassFds = (),
        tty: Size = False,
        terminal: bool = False,
    ) -> None:
        """Start the command. The process holds the container: it is not ended for want of a reference meanwhile.

        With ``terminal`` its stdin, which is a terminal, becomes its controlling one (tty_ioctl(4), TIOCSCTTY); with
        ``tty`` one is made.

        Raises FileNotFoundError, PermissionError, NotADirectoryError and other OSErrors as subprocess does, naming the
        program or ``cwd``; :class:`LabError` for what goes wrong on the way there, :class:`LabDied` when the container
        has ended, :class:`PoorContainerError` when it is closed.
        """
        self._control: Control | None = None
        self._streams: Streams | None = None
        if text is not None and universal_newlines is not None and bool(text) != bool(universal_newlines):
            raise subprocess.SubprocessError("cannot disambiguate: text and universal_newlines differ")
        self.args = argv
        self.encoding, self.errors = encoding, errors
        self.text_mode = bool(encoding or errors or text or universal_newlines)
        self.returncode: int | None = None
        self._handle, self._bufsize = handle, bufsize
        self._files: list[IO[Any] | None] = [None, None, None]
        self._lock = threading.Lock()
        words = arguments(argv)
        self._what = os.fsdecode(words[0])
        size = window(tty)
        self._tty = size is not None
        self._extra = passed(pass_fds)
        term = _TERM if self._tty else b""
        wanted = terminal or self._tty
        more: dict[str, Any] = {"numbers": self._extra, "clock": handle.clock, "preload": handle.agent.preload}
        body = pack_request(words, env, cwd, user, terminal=wanted, term=term, **more)
        if self._tty and not stdin is stdout is stderr is None:
            raise ValueError("stdin, stdout and stderr arguments may not be used with tty.")
        handle.check()
        try:
            with _enough_descriptors(self._what):
                self._streams = Streams(stdin, stdout, stderr) if size is None else _terminal(handle, user, size)
                self._control = Control()
            self._start(body, cwd, env)
        except BaseException:
            self.close()
            raise

    def _start(self, body: bytes, cwd: Text | None, env: Environment | None) -> None:
        streams, control = self._streams, self._control
        assert streams is not None  # noqa: S101 - for the type checker
        assert control is not None  # noqa: S101
        try:
            number = self._handle.agent.execute(
                body, (control.theirs(), *streams.child, *self._extra.values()), self._what
            )
            streams.passed_on()
            control.passed_on()
            answer = control.first(_PATIENCE_AT_START)
        except BaseException as error:
            # Ctrl-C, or a test's time is up, between the request and its answer: what was asked for must not run on.
            control.passed_on()
            control.kill_tree()
            control.until(lambda: control.tree_dead, now() + _PATIENCE_AT_END)
            explained = self._explained(error)
            if explained is None:
                raise
            raise explained from None
        if answer is None:
            self._handle.check()  # as above
            raise self._handle.agent.complaint(number) or self._handle.died(f"run {self._what}")
        if answer.op == Op.ERROR:
            raise self._refusal(answer, cwd, env)
        self.pid = answer.pid
        self.pid_inside = answer.number(Field.PID)

    def _explained(self, error: BaseException) -> Exception | None:
        if isinstance(error, OSError) and error.errno == errno.E2BIG:
            return OSError(error.errno, os.strerror(error.errno), self._what)
        if isinstance(error, LabDied):
            self._handle.check()  # closed meanwhile, by another thread: no surprise
        if isinstance(error, BlockingIOError):
            why = f"nothing was heard of it within {_PATIENCE_AT_START:g} s; is its file system hanging?"
            return LabError(f"run {self._what} in", self._handle.name, errno.ETIMEDOUT, why)
        return None

    def _refusal(self, answer: Message, cwd: Text | None, env: Environment | None) -> Exception:
        number, step = answer.number(Field.ERRNO), answer.text(Field.STEP)
        if step == "chdir" and cwd is not None:
            return OSError(number, os.strerror(number), os.fsdecode(cwd))
        if step == "exec" and number == errno.ENOENT:
            from pytest_poorcontainer.container.not_found import not_found  # noqa: PLC0415 - few tests need it

            return not_found(self._handle, self._what, search_path(env))
        if step == "exec":
            return OSError(number, os.strerror(number), self._what)
        # In a pid namespace that is coming to its end fork fails with ENOMEM: closed by another thread, no surprise.
        self._handle.check()
        return answer.error()

    def __repr__(self) -> str:
        """Show what runs, where, and whether it still does."""
        return f"<Process {self._what!r} in {self._handle.name}: returncode {self.returncode}, args {self.args!r}>"

    @property
    def stdin(self) -> IO[Any] | None:
        """The file object to write to, when ``stdin=PIPE``."""
        return self._file(0)

    @property
    def stdout(self) -> IO[Any] | None:
        """The file object to read from, when ``stdout=PIPE``."""
        return self._file(1)

    @property
    def stderr(self) -> IO[Any] | None:
        """The file object to read from, when ``stderr=PIPE``."""
        return self._file(2)

    @property
    def universal_newlines(self) -> bool:
        """Whether the streams are text; Popen's older name for it."""
        return self.text_mode

    def _file(self, number: int) -> IO[Any] | None:
        # Made when asked for: run() does without.
        with self._lock:
            streams = self._streams
            if self._files[number] is None and streams is not None and streams.ours[number] >= 0:
                self._files[number] = self._open(streams.ours[number], number)
                streams.ours[number] = -1
            return self._files[number]

    def _open(self, fd: int, number: int) -> IO[Any]:
        line_buffered = self.text_mode and self._bufsize == 1
        size = -1 if line_buffered else self._bufsize
        raw: IO[Any]
        if self._tty and number:
            self._screen = Screen(fd)
            raw = cast("IO[Any]", self._screen if size == 0 else io.BufferedReader(self._screen))
        else:
            raw = open(fd, _MODES[number], size)  # noqa: SIM115 - a descriptor
        if not self.text_mode:
            return raw
        return io.TextIOWrapper(
            raw,
            encoding=self.encoding or "utf-8",
            errors=self.errors,
            line_buffering=line_buffered and number == 0,
            write_through=number == 0 and self._bufsize == 0,
        )

    def poll(self) -> int | None:
        """Return the return code when the command has ended, else None. Does not wait.

        Raises :class:`LabDied` when the container has ended although nobody asked it to.
        """
        if self.returncode is None:
            control = self._line()
            control.glance()
            self._note(control)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command's end and return its return code.

        Raises subprocess.TimeoutExpired after ``timeout`` seconds (the command goes on), :class:`LabDied` when the
        container has ended although nobody asked it to.
        """
        if not self._ended(None if timeout is None else now() + timeout):
            raise subprocess.TimeoutExpired(self._shown(), timeout or 0.0)
        assert self.returncode is not None  # noqa: S101 - for the type checker
        return self.returncode

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is news of the command (poll(2)); -1 after :meth:`close`."""
        return -1 if self._control is None else self._control.fileno()

    def tree_ended(self, timeout: float | None = 0.0) -> bool:
        """Return whether the command and all that it started have ended; wait up to ``timeout`` seconds for it."""
        control = self._line()
        if timeout == 0:
            control.glance(further=True)
        else:
            control.until(lambda: control.tree_dead, None if timeout is None else now() + timeout)
        return control.gone or control.tree_dead

    @property
    def watcher(self) -> int:
        """The pid of the command's watcher as seen from here, known when the command has ended; 0 until then."""
        return 0 if self._control is None else self._control.watcher

    def _ended(self, deadline: float | None) -> bool:
        if self.returncode is None:
            control = self._line()
            if not control.until(lambda: control.status is not None, deadline):
                return False
            self._note(control)
        return True

    def _line(self) -> Control:
        self._handle.lab.check_fork(f"process {self._what}")
        assert self._control is not None  # noqa: S101 - only of a process that did not start
        return self._control

    def _note(self, control: Control) -> None:
        """Set the return code when it is known."""
        if control.status is not None:
            self.returncode = os.waitstatus_to_exitcode(control.status)
        elif control.gone:
            if not self._handle.ended_by_us():
                raise self._handle.died(f"wait for {self._what}")
            # With the container the kernel ended all that was in it, and by SIGKILL (pid_namespaces(7)).
            self.returncode = os.waitstatus_to_exitcode(_KILLED)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:  # noqa: A002 - Popen's name
        """Feed ``input`` to stdin, read stdout and stderr to their ends, wait; return both outputs (None: no pipe).

        Raises subprocess.TimeoutExpired after ``timeout`` seconds with the output so far (always bytes, as subprocess
        does); call it again without ``input`` for the rest, or :meth:`end` the command.
        """
        self._handle.lab.check_fork(f"process {self._what}")
        deadline = None if timeout is None else now() + timeout
        if self._exchange is None:
            self._exchange = self._begin(input)
        elif input:
            raise ValueError("Cannot send input after starting communication")
        exchange = self._exchange
        if not (exchange.run(deadline) and self._ended(deadline)):
            out, err = exchange.output(1) or None, exchange.output(2) or None
            raise subprocess.TimeoutExpired(self._shown(), timeout or 0.0, out, err)
        if self._tty:
            self._close_end(1)
        return self._decode(exchange.output(1)), self._decode(exchange.output(2))

    def _begin(self, data: Any) -> Exchange:
        stdin, streams = self._files[0], self._streams
        assert streams is not None  # noqa: S101 - only of a process that did not start
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                stdin.flush()
        if data and self.text_mode and isinstance(data, str):
            data = data.encode(self.encoding or "utf-8", self.errors or "strict")
        ends = [fd if file is None else _fileno(file) for fd, file in zip(streams.ours, self._files, strict=True)]
        if self._tty:
            # What one types to say that there is no more; twice, where no line has been ended before it (termios(3)).
            data = bytes(data or b"")
            data += _END_OF_INPUT if data[-1:] in (b"", b"\n") else 2 * _END_OF_INPUT
        if data and ends[0] < 0:
            raise ValueError("input was given, but stdin is no pipe: say stdin=PIPE, or use run()")
        return Exchange((ends[0], ends[1], ends[2]), self._close_exchanged, data or b"")

    def _decode(self, data: bytes | None) -> str | bytes | None:
        if data is None or not self.text_mode:
            return data
        text = data.decode(self.encoding or "utf-8", self.errors or "strict")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of its terminal; what runs in the foreground there gets SIGWINCH.

        Raises :class:`UsageError` when it was started without ``tty``, ValueError when ``stdout`` is closed.
        """
        if not self._tty:
            raise UsageError(f"{self._what} has no terminal to resize: start it with popen(..., tty=True)")
        stdout = self.stdout
        assert stdout is not None  # noqa: S101 - a terminal has one
        set_window(stdout.fileno(), window((columns, lines)) or (0, 0))

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command alone. Does nothing when it has ended.

        The watcher does it, which alone knows that the pid is still the command's.
        """
        if not is_signal(sig):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if self.poll() is None:
            self._line().signal(int(sig))

    def terminate(self) -> None:
        """Send SIGTERM to the command."""
        self.send_signal(15)

    def kill(self) -> None:
        """Send SIGKILL to the command; what it started goes on, see :meth:`end`."""
        self.send_signal(9)

    def end(self) -> int:
        """End the command and all that it started, also what called setsid or daemonized; return its return code.

        Returns when every one of these processes is dead. Raises :class:`LabError` when they are not after 5 s.
        """
        control = self._line()
        if not control.gone:
            control.kill_tree()
            deadline = now() + _PATIENCE_AT_END
            ended = control.until(lambda: control.tree_dead or control.complaint is not None, deadline)
            complaint, control.complaint = control.complaint, None
            if not ended or complaint is not None:
                why = "is one of them in an uninterruptible sleep? Closing the container ends what can be ended"
                raise complaint or LabError("end all that was started by", self._what, errno.ETIMEDOUT, why)
        if self.returncode is None:
            # Nothing of it is left. Where its own word was lost with the container, SIGKILL is what ended it.
            status = _KILLED if control.status is None else control.status
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def close(self) -> None:
        """Close our ends of the pipes and the line to the command, which goes on. Idempotent."""
        for number in range(3):
            self._close_end(number)
        if self._streams is not None:
            self._streams.close()
        if self._control is not None:
            self._control.close()

    def _close_exchanged(self, number: int) -> None:
        # A command that has closed its terminal but not ended yet would be hung up on (SIGHUP).
        if number == 0 or not self._tty:
            self._close_end(number)

    def _close_end(self, number: int) -> None:
        file, streams = self._files[number], self._streams
        if file is not None:
            with contextlib.suppress(BrokenPipeError):
                file.close()
        elif streams is not None and streams.ours[number] >= 0:
            fd, streams.ours[number] = streams.ours[number], -1
            os.close(fd)

    def _shown(self) -> Any:
        return self.args

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self.end()
            elif self._screen is not None and self._screen.ended:
                self.wait()  # not hung up on, as above
        finally:
            for number in (1, 2, 0):
                self._close_end(number)
        self.wait()

    def __del__(self) -> None:
        """Close quietly what nobody refers to any more; the command goes on until its container ends."""
        if getattr(self, "_files", None) is not None:
            self.close()


@contextlib.contextmanager
def _enough_descriptors(what: str) -> Iterator[None]:
    """Say what to do when there are no more of them."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        remedy = "raise the limit of open files (ulimit -n), or close what is no longer needed"
        raise LabError("make the pipes of", what, error.errno, remedy) from error


def _terminal(handle: Handle, user: str | int | None, size: tuple[int, int]) -> TerminalStreams:
    master, terminal = handle.agent.terminal(None if user is None else user_text(user))
    streams = TerminalStreams(master, terminal)
    try:
        set_window(master, size)
    except BaseException:
        streams.close()
        raise
    return streams


def _fileno(file: IO[Any]) -> int:
    return -1 if file.closed else file.fileno()
