"""Plugins of this package, not of pytest: who adds a source of root file systems registers here.

Built on pluggy, as pytest's own plugins are, but nothing of it needs pytest. A distribution names its plugin (a module
or an object with hook functions) in the entry-point group ``poor_container``; whoever has none calls
``manager().register(plugin)``. The hooks are specified where they are called: ``rootfs.hookspecs``.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING

import pluggy

from pytest_poorcontainer.errors import PoorContainerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["GROUP", "declare", "hookimpl", "hookspec", "load", "manager", "names"]

GROUP = "poor_container"
"""The entry-point group, and the project name of the markers."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

_guard = threading.RLock()
_manager: pluggy.PluginManager | None = None
_loaded = False


def manager() -> pluggy.PluginManager:
    """Return the one manager of this process."""
    global _manager  # noqa: PLW0603 - made when the first one asks
    with _guard:
        if _manager is None:
            _manager = pluggy.PluginManager(GROUP)
        return _manager


def declare(specifications: str, plugins: Sequence[str]) -> pluggy.PluginManager:
    """Add a module of hook specifications, and our own plugins (modules); each once. Return the manager.

    What was imported anew takes its old self's place: pytester forgets modules after each run of pytest in our process.
    """
    with _guard:
        found = manager()
        known = found.get_plugin(specifications)
        if known is None or known is not sys.modules.get(specifications):
            module = importlib.import_module(specifications)
            if known is None:
                found.add_hookspecs(module)
            for name in plugins:
                _register(found, name, importlib.import_module(name))
            _register(found, specifications, module)  # last: the mark that all of it is done
        return found


def _register(found: pluggy.PluginManager, name: str, plugin: ModuleType) -> None:
    if found.has_plugin(name):
        found.unregister(name=name)
    found.register(plugin, name)


def load() -> None:
    """Load the plugins that installed distributions name in the entry-point group; once.

    It reads the metadata of every distribution, so it is left until somebody asks for what nobody of ours knows.
    Raises :class:`PoorContainerError` when one of them cannot be loaded.
    """
    global _loaded  # noqa: PLW0603 - entry points do not change while we run
    with _guard:
        if _loaded:
            return
        from importlib import metadata  # noqa: PLC0415 - it takes five times as long to load as pluggy

        found = manager()
        for entry in metadata.entry_points(group=GROUP):
            if found.has_plugin(entry.name) or found.is_blocked(entry.name):
                continue
            try:
                found.register(entry.load(), entry.name)
            except Exception as error:
                owner = entry.dist.name if entry.dist else "an unknown distribution"
                raise PoorContainerError(
                    f"cannot load the plugin {entry.name} ({entry.value}) of {owner}: {type(error).__name__}: {error}; "
                    "mend or uninstall it"
                ) from error
        _loaded = True


def names() -> list[str]:
    """Return the names of the plugins that are registered and not ours, for messages."""
    ours = __name__.partition(".")[0]
    with _guard:
        return sorted(name for name, _ in manager().list_name_plugin() if not name.startswith(ours))


def _renew_guard() -> None:
    global _guard  # noqa: PLW0603 - another thread of the parent's may have held it
    _guard = threading.RLock()


os.register_at_fork(after_in_child=_renew_guard)
