"""The mirror syncer: keeps copies of archives in step with their sources, and shows how they are.

``python -m pytest_poorcontainer.cli.poor_mirror`` is its command; :mod:`~pytest_poorcontainer.mirror.sync` one run of
it.
"""
