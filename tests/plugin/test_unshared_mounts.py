"""``unshared_mounts`` and mounts as data: of a fixture, of a marker, of pyproject.toml."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.poor_container


def test_a_disk_that_is_full_and_a_directory_of_the_test(pytester, run):
    """The example of the documents: a small tmpfs, a read-only directory, and a command that meets both."""
    pytester.makepyfile(
        """
        import os

        def test_disk_full(unshared_mounts, tmp_path):
            (tmp_path / "app.conf").write_text("port = 1")
            unshared_mounts.tmpfs("/var/lib/app", size="1M")
            unshared_mounts.bind(tmp_path, "/etc/app", readonly=True)
            told = unshared_mounts.run(
                ["sh", "-c", "cat /etc/app/app.conf; head -c 2M /dev/zero >/var/lib/app/data"],
                capture_output=True, text=True,
            )
            assert told.returncode != 0
            assert told.stdout == "port = 1"
            assert "No space left" in told.stderr
            assert unshared_mounts.run(["touch", "/etc/app/new"], capture_output=True).returncode != 0
            assert not os.path.exists("/etc/app") and not os.path.exists("/var/lib/app")
            assert unshared_mounts.container.name == "mounts"
        """,
    )
    run("--poor-container").assert_outcomes(passed=1)


def test_every_container_mounts_the_same_way(pytester, run):
    """``chroot_env.mount``, ``chroot_env.mounts`` and a host's do what ``unshared_mounts`` does, each for itself."""
    pytester.makepyfile(
        """
        def test_all(chroot_env, netns_pair, unshared_mounts):
            chroot_env.mount("tmpfs", "/data", size="1M")
            netns_pair.a.mounts.tmpfs("/data", size="2M")
            unshared_mounts.tmpfs("/data", size="3M")
            for container, size in ((chroot_env, 1024), (netns_pair.a, 2048), (unshared_mounts, 3072)):
                told = container.run(["df", "--output=size", "/data"], capture_output=True, text=True, check=True)
                assert int(told.stdout.split()[-1]) == size
            assert unshared_mounts.container.mounts is unshared_mounts
        """,
    )
    run("--poor-container").assert_outcomes(passed=1)


MARKED = """
    import pytest

    @pytest.mark.poor_container(mounts=[
        {"kind": "bind", "source": "conf", "target": "/etc/app", "readonly": True},
        {"kind": "tmpfs", "target": "/data", "size": "1M"},
    ])
    def test_marked(FIXTURE):
        containers = FIXTURE if FIXTURE_IS_PAIR else [FIXTURE]
        for container in containers:
            assert container.run(["cat", "/etc/app/a"], capture_output=True, text=True).stdout == "one"
            assert container.run(["touch", "/data/b"]).returncode == 0
            assert container.run(["touch", "/etc/app/b"], capture_output=True).returncode != 0
"""


@pytest.mark.parametrize("fixture", ["chroot_env", "unshared_mounts", "netns_pair"])
def test_mounts_of_a_marker(pytester, run, fixture):
    """What a marker has mounted is there when the test begins, in each of its containers; sources are the rootdir's."""
    pytester.mkdir("conf").joinpath("a").write_text("one")
    source = MARKED.replace("FIXTURE_IS_PAIR", str(fixture == "netns_pair")).replace("FIXTURE", fixture)
    pytester.makepyfile(source)
    run("--poor-container").assert_outcomes(passed=1)


PROJECT = """
    [tool.pytest.ini_options]
    poor_container = "on"

    [[tool.poor_container.mounts]]
    kind = "bind"
    source = "conf"
    target = "/etc/app"

    [[tool.poor_container.mounts]]
    kind = "tmpfs"
    target = "/var/lib/app"
    mode = "0700"
"""


@pytest.mark.parametrize("args", [(), ("-n1",)])
def test_mounts_of_the_project(pytester, run, args):
    """What pyproject.toml has mounted is in every container that a fixture makes, before what the marker wants."""
    pytester.mkdir("conf").joinpath("a").write_text("one")
    pytester.makepyprojecttoml(PROJECT)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.poor_container(mounts=[{"kind": "tmpfs", "target": "/var/lib/app/deep"}])
        def test_all(chroot_env, netns_pair, unshared_mounts, chroot_env_factory):
            for container in (chroot_env, *netns_pair, unshared_mounts, chroot_env_factory()):
                assert container.run(["cat", "/etc/app/a"], capture_output=True, text=True).stdout == "one"
                assert container.run(["stat", "-c%a", "/var/lib/app"], capture_output=True).stdout == b"700\\n"
            assert chroot_env.run(["test", "-d", "/var/lib/app/deep"]).returncode == 0
        """,
    )
    run(*args).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("kind = 'nfs'\ntarget = '/a'", "[[][[]tool.poor_container.mounts]] 1: *'nfs'*"),
        ("target = '/a'", "[[][[]tool.poor_container.mounts]] 1: kind is missing; *"),
        ("kind = 'tmpfs'\ntarget = 'a'", "[[][[]tool.poor_container.mounts]] 1: *'a'*"),
        ("kind = 'tmpfs'\ntarget = '/a'\nsize = '64X'", "[[][[]tool.poor_container.mounts]] 1: *'64X'*"),
        ("kind = 'tmpfs'\ntarget = '/a'\nsise = 1", "[[][[]tool.poor_container.mounts]] 1: *sise*"),
        ("kind = 'bind'\ntarget = '/a'", "[[][[]tool.poor_container.mounts]] 1: *source*"),
    ],
)
def test_a_mistake_in_the_project_is_told_once(pytester, run, table, message):
    """A wrong table ends the run at its start, with the file, the number of the table and what is wrong."""
    pytester.makepyprojecttoml(f"[[tool.poor_container.mounts]]\n{table}\n")
    pytester.makeini("[pytest]\npoor_container = on\n")
    pytester.makepyfile("def test_a(chroot_env): pass\ndef test_b(chroot_env): pass")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.errlines if "pyproject.toml" in line]
    assert len(lines) == 1
    result.stderr.fnmatch_lines([f"ERROR: *pyproject.toml: {message}"])
    assert run("--no-poor-container").ret == pytest.ExitCode.OK


def test_other_keys_of_our_table_are_refused(pytester, run):
    """A misspelt key is not passed over."""
    pytester.makepyprojecttoml("[tool.poor_container]\nmount = []\n")
    pytester.makepyfile("def test_a(): pass")
    result = run("--poor-container")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *pyproject.toml: [[]tool.poor_container] has no key 'mount'; it has mounts"])


def test_a_mount_that_fails_fails_the_set_up_and_leaves_nothing(pytester, run):
    """What cannot be mounted is an error of the test that wants it; its container is gone, and the next test runs."""
    pytester.makeconftest(
        """
        def pytest_poor_container_container_ready(container):
            with open("pids", "a") as file:
                file.write(f"{container.pid}\\n")
        """,
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.poor_container(mounts=[{"kind": "bind", "source": "no/such", "target": "/etc/app"}])
        def test_missing(chroot_env): raise RuntimeError("ran")

        def test_next(chroot_env, chroot_env_factory):
            assert chroot_env.run(["true"]).returncode == 0
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E *no/such*"])
    assert len((pytester.path / "pids").read_text().split()) == 1, "the hook is called when the mounts are there"


def test_a_failure_shows_what_was_mounted(pytester, run):
    """The report names the mounts that were made on request, and no others."""
    pytester.makepyfile(
        """
        def test_fails(unshared_mounts, chroot_env):
            unshared_mounts.tmpfs("/var/lib/app", size="1M")
            assert False
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- poor-container: hosts -*", "mounts: namespaces", "env: namespaces"])
    lines = [line for line in result.outlines if "/var/lib/app" in line and line.startswith("mounts: ")]
    assert len(lines) == 1
    assert "tmpfs" in lines[0]


def test_closed_by_its_block_and_by_its_end(pytester, run):
    """The value is a context manager: its container ends with the block, and those of the fixture with the test."""
    pytester.makepyfile(
        """
        import os
        pids = []

        def test_first(unshared_mounts, unshared_mounts_factory):
            with unshared_mounts_factory(name="other") as mounts:
                assert mounts.run(["hostname"], capture_output=True, text=True).stdout == "other\\n"
                pid = mounts.container.pid
                pids.append(unshared_mounts.container.pid)
            assert not os.path.exists(f"/proc/{pid}")
            assert os.path.exists(f"/proc/{pids[0]}")

        def test_second():
            assert not os.path.exists(f"/proc/{pids[0]}")
        """,
    )
    run("--poor-container").assert_outcomes(passed=2)
