"""``poor-mirror``: keeps mirrors in step with their sources, and shows how they are."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.cli import _mirror_output as output
from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.mirror.config import Config, Mirror, load, lowest
from pytest_poorcontainer.mirror.errors import STATUSES, BadConfig, BadDestination, MirrorError
from pytest_poorcontainer.mirror.rules import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_CONFIG = "mirrors.toml"
_SYSTEM = Path("/etc/poor-mirror/mirrors.toml")
_WORST = (130, 2, 8, 1, 7, 9, 6, 4, 3, 5, 10, 0)
"""Which status counts when several mirrors end with different ones."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``poor-mirror`` with these arguments (default: the process's) and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        status: int = options.execute(options)
        sys.stdout.flush()
    except PoorContainerError as error:
        print(f"poor-mirror: {error}", file=sys.stderr)
        return error.status if isinstance(error, MirrorError) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("poor-mirror: interrupted", file=sys.stderr)
        return 130
    return status


def _width() -> int:
    """Return the width of a help. argparse finds it out for each argument anew, by shutil with all its compressors."""
    columns = os.environ.get("COLUMNS", "")
    try:
        return int(columns) if columns.isdigit() else os.get_terminal_size().columns
    except OSError:
        return 80


def _parser() -> argparse.ArgumentParser:
    formatter = functools.partial(argparse.HelpFormatter, width=_width() - 2)
    statuses = "; ".join(f"{number} {meaning}" for number, meaning in STATUSES.items())
    parser = argparse.ArgumentParser(
        prog="poor-mirror",
        description="Keeps mirrors in step with their sources, and shows how they are.",
        epilog=f"Exit status: {statuses}.",
        formatter_class=formatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"./{_CONFIG} or {_SYSTEM} unless it is named")
    # Without prog a formatter is made to find it out, which wants to know the width of the terminal.
    commands = parser.add_subparsers(metavar="COMMAND", required=True, prog=parser.prog)

    def command(name: str, execute: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, formatter_class=formatter)
        added.set_defaults(execute=execute)
        return added

    added = command("sync", _sync, "Synchronise mirrors once, all or those that are named.")
    added.add_argument("names", nargs="*", metavar="NAME")
    # Of the daemon: the limits for all are for so many runs, and it writes the page itself.
    added.add_argument("--runs", type=int, default=0, help=argparse.SUPPRESS)
    _run_options(added)
    added = command("copy", _copy, "Copy one source to one destination, without a configuration.")
    added.add_argument("source", metavar="SOURCE")
    added.add_argument("dest", metavar="DEST")
    _run_options(added)
    for flag in ("--exclude", "--include", "--index"):
        added.add_argument(
            flag, action="append", default=[], metavar="PATTERN", help="in rsync's syntax; again for more"
        )
    added.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of [mirror.NAME]")
    added = command("plan", _plan, "Show the plan that is held, or else make a new one and change nothing.")
    added.add_argument("name", metavar="NAME")
    added.add_argument("--json", action="store_true", help="as JSON")
    added.add_argument("--fresh", action="store_true", help="make a new one, even if one is held")
    added = command("release", _release, "Let exactly the plan that is held pass, with the next run.")
    added.add_argument("name", metavar="NAME")
    added.add_argument("digest", metavar="DIGEST", nargs="?", default="", help="of the plan that was looked at")
    added = command(
        "status", _status, "Show how the mirrors are; ends with 4, 1 or 3 if one is held, has failed or is partial."
    )
    added.add_argument("--json", action="store_true", help="as JSON")
    added = command("history", _history, "Show the last runs of a mirror.")
    added.add_argument("name", metavar="NAME")
    added.add_argument("-n", type=int, default=30, metavar="COUNT")
    added.add_argument("--json", action="store_true", help="as JSON")
    added = command("log", _log, "Show the log of a mirror's last run.")
    added.add_argument("name", metavar="NAME")
    command("check", _check, "Read the configuration, and say whether it can be used.")
    added = command("page", _page, "Write the status page once.")
    added = command("run", _run, "Keep all mirrors in step, by their intervals, until it is ended by a signal.")
    added.add_argument("--serve", metavar="ADDRESS:PORT", default="", help="serve the status page there")
    return parser


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and change nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object for each step and result, a line each")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--force-delete", action="store_true", help="let the plan of this run pass the guard")
    parser.add_argument("--verify", action="store_true", help="compare every file, whatever a manifest says")
    parser.add_argument(
        "--adopt", action="store_true", help="take over a destination that has files and no mark of ours"
    )


def _config(options: argparse.Namespace) -> Config:
    path = options.config or (Path(_CONFIG) if Path(_CONFIG).exists() or not _SYSTEM.exists() else _SYSTEM)
    return load(path)


def _one(options: argparse.Namespace) -> Mirror:
    return _config(options).chosen([options.name])[0]


def _ours(options: argparse.Namespace) -> Mirror:
    """Return the mirror that is named; raises :class:`BadDestination` when what is ours in it may not be read."""
    mirror = _one(options)
    try:
        os.close(os.open(mirror.work / OURS / ".", os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        pass  # it has not run yet
    except OSError as error:
        raise BadDestination(
            f"cannot read {mirror.work / OURS}: {error.strerror}; ask as who runs the mirror"
        ) from error
    return mirror


def _sync(options: argparse.Namespace) -> int:
    config = _config(options)
    statuses = [_synchronise(mirror, options, config) for mirror in config.chosen(options.names)]
    return min(statuses, key=lambda status: _WORST.index(status) if status in _WORST else 0)


def _copy(options: argparse.Namespace) -> int:
    from pytest_poorcontainer.mirror.config import single  # noqa: PLC0415 - one command

    for what in ("source", "dest"):
        if not getattr(options, what):
            raise BadConfig(f"{what.upper()} is empty: name it; a dot is the directory that you are in")
    dest = Path(options.dest).absolute()
    given = dict(_pair(text) for text in options.set)
    if "://" not in options.source and not _is_ssh(options.source):
        options.source = os.path.abspath(options.source)  # noqa: PTH100 - resolves no links, as a path may be one
    lists = {"exclude": options.exclude, "include": options.include, "indexes": options.index}
    given.update({key: value for key, value in lists.items() if value})
    return _synchronise(single(options.source, dest, given), options, None)


def _is_ssh(source: str) -> bool:
    return ":" in source and "/" not in source.partition(":")[0] and not Path(source).exists()


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise BadConfig(f'--set {text}: write KEY=VALUE, as in --set profile=debian or --set "idle=10"')
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _synchronise(mirror: Mirror, options: argparse.Namespace, config: Config | None) -> int:
    from pytest_poorcontainer.mirror.sync import Run  # noqa: PLC0415 - not for who only looks

    _end_as_interrupted()
    # A plan is up to a million tuples without a cycle among them: looking for garbage in it is in vain.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    more: dict[str, Any] = {}
    if config is not None:
        most = lowest(mirror.bandwidth, config.bandwidth)
        mirror = config.limited(mirror, options.runs or 1)
        if options.runs and config.bandwidth:
            from pytest_poorcontainer.mirror.shares import Share, follows, share_file  # noqa: PLC0415 - of the daemon

            if follows(mirror):
                more["share"] = Share(share_file(config), mirror.bandwidth, most).now
                mirror = dataclasses.replace(mirror, bandwidth=most)
    rate = os.environ.get("POOR_MIRROR_RATE", "")
    if rate.isdigit():
        mirror = dataclasses.replace(mirror, bandwidth=lowest(mirror.bandwidth, int(rate)))
    show = output.Shown(mirror.name, mirror.where, as_json=options.json, quiet=options.quiet)
    page = _Page(config, mirror.name) if config is not None and not (options.dry_run or options.runs) else None

    def tell(told: dict[str, Any]) -> None:
        show.progress(told)
        if page is not None and told["phase"] == "fetch":
            page.begun()

    run = Run(
        mirror,
        dry=options.dry_run,
        force=options.force_delete,
        verify=options.verify,
        adopt=options.adopt,
        tell=tell,
        **more,
    )
    result = run.go()
    show.result(result, with_plan=options.dry_run)
    return result.status if page is None or page.ended() else result.status or 1


class _Page:
    """The status page of a run that nobody else shows. That it cannot be written is said once, and ends no run."""

    def __init__(self, config: Config, name: str) -> None:
        self._config, self._name = config, name
        self._begun = config.page is None
        self._good = True

    def begun(self) -> None:
        """Show that there is something to fetch; a run without changes is over before anybody looks."""
        if not self._begun:
            self._begun = True
            self._write()

    def ended(self) -> bool:
        """Show how the run has ended; whether the page could be written."""
        if self._good and self._config.page is not None:
            self._write()
        return self._good

    def _write(self) -> None:
        from pytest_poorcontainer.mirror.page.render import write  # noqa: PLC0415 - needs jinja2

        try:
            write(self._config, [self._name])
        except MirrorError as error:
            self._good = False
            print(f"poor-mirror: {error}", file=sys.stderr)


def _end_as_interrupted() -> None:
    """Have SIGTERM end a run as SIGINT does: what is on its way is dropped, and the result is written."""

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - a handler's arguments
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _plan(options: argparse.Namespace) -> int:
    from pytest_poorcontainer.mirror.home import Home  # noqa: PLC0415 - one command
    from pytest_poorcontainer.mirror.sync import sync  # noqa: PLC0415 - as above

    mirror = _ours(options)
    held = None if options.fresh else Home.held(mirror.work)
    if held is not None:
        plan, saved = held
        if not options.json:
            age = time.time() - saved.get("since", time.time())
            print(f"# held for {age:.0f} s: {'; '.join(saved.get('reasons', []))}")
            print(f"# to let exactly this pass: poor-mirror release {mirror.name} {plan.digest()}")
    else:
        result = sync(mirror, dry=True)
        if result.plan is None:
            print(f"poor-mirror: {result.reason}", file=sys.stderr)
            return result.status
        plan = result.plan
    if options.json:
        print(json.dumps(plan.dump()))
        return 0
    for line in plan.lines():
        print(line)
    print(f"# {plan.summary()}")
    return 0


def _release(options: argparse.Namespace) -> int:
    from pytest_poorcontainer.mirror.home import Home  # noqa: PLC0415 - one command

    mirror = _ours(options)
    print(f"released: {Home.release(mirror.work, options.digest)}; the next run carries it out")
    return 0


def _status(options: argparse.Namespace) -> int:
    from pytest_poorcontainer.mirror.overview import overview  # noqa: PLC0415 - one command

    found = overview(_config(options))
    if options.json:
        print(json.dumps(found))
    else:
        output.table(found)
    states = {mirror["state"] for mirror in found["mirrors"]}
    return 4 if "held" in states else 1 if "failed" in states else 3 if "partial" in states else 0


def _history(options: argparse.Namespace) -> int:
    from pytest_poorcontainer.mirror.history import History  # noqa: PLC0415 - one command

    runs = History(_one(options).state / "history.sqlite3").runs(options.name, options.n)
    if options.json:
        print(json.dumps(runs))
    else:
        output.runs(runs)
    return 0


def _log(options: argparse.Namespace) -> int:
    from pytest_poorcontainer.mirror.home import Home  # noqa: PLC0415 - one command

    mirror = _ours(options)
    path = Home.last_log(mirror.work)
    if path is None:
        raise MirrorError(f"there is no log of {mirror.name}: it has not run yet")
    sys.stdout.write(path.read_text(encoding="utf-8", errors="backslashreplace"))
    return 0


def _check(options: argparse.Namespace) -> int:
    from pytest_poorcontainer.mirror.sources.finding import try_source  # noqa: PLC0415 - one command

    config = _config(options)
    for mirror in config.mirrors.values():
        try:
            try_source(mirror)
        except MirrorError as error:  # noqa: PERF203 - which of them it is
            raise type(error)(f"{mirror.where}: [mirror.{mirror.name}] source: {error}") from error
    print(f"{config.path}: {len(config.mirrors)} mirrors; state in {config.state}")
    for mirror in config.mirrors.values():
        print(f"  {mirror.name}: {output.public(mirror.source)} -> {mirror.dest} ({mirror.profile})")
    return 0


def _page(options: argparse.Namespace) -> int:
    from pytest_poorcontainer.mirror.page.render import write  # noqa: PLC0415 - needs jinja2

    config = _config(options)
    write(config)
    print(f"written to {config.page or config.state / 'page'}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from pytest_poorcontainer.mirror.daemon import Daemon  # noqa: PLC0415 - one command

    return Daemon(_config(options), options.serve).run()


if __name__ == "__main__":
    sys.exit(main())
