"""``chroot_env`` and ``chroot_env_factory``: what a test gets, under which markers, and that it is gone afterwards."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.poor_container


def test_a_container_with_files_and_commands_of_its_own(pytester, run):
    """A test writes a file, runs a command on it, and the machine has neither the file nor the process."""
    pytester.makepyfile(
        """
        import os

        def test_config(chroot_env, tmp_path):
            chroot_env.write("/etc/app.conf", "port = 1\\n")
            told = chroot_env.run(["cat", "/etc/app.conf", "/etc/hostname"], capture_output=True, text=True)
            assert told.stdout == "port = 1\\nenv\\n"
            assert not os.path.exists("/etc/app.conf")
            assert chroot_env.rootfs == "host"
            assert repr(chroot_env) == "<ChrootEnv env>"
            assert chroot_env.run(["test", "-w", tmp_path]).returncode == 0
            assert chroot_env.run(["cat", "/sys/class/net/eth0/mtu"], capture_output=True).returncode != 0
        """,
    )
    run("--poor-container").assert_outcomes(passed=1)


def test_just_some_programs(pytester, run):
    """With a list of programs there is nothing else, for ``chroot_env`` and for the hosts of ``netns_pair`` alike."""
    pytester.makepyfile(
        """
        import pytest
        pytestmark = pytest.mark.poor_container(rootfs=["/bin/sh", "cat"])

        def lacks(container):
            with pytest.raises(FileNotFoundError, match="/bin/sh"):
                container.run(["python3"])
            return container.run(["sh", "-c", "cat /etc/hostname"], capture_output=True, text=True).stdout

        def test_env(chroot_env):
            assert lacks(chroot_env) == "env\\n"

        def test_pair(netns_pair):
            primary, replica = netns_pair
            assert [lacks(host) for host in netns_pair] == ["a\\n", "b\\n"]
            with primary.listen((primary.ip, 80)) as server, replica.connect((primary.name, 80)):
                server.accept()[0].close()
        """,
    )
    run("--poor-container").assert_outcomes(passed=2)


def test_a_relative_root_is_below_the_rootdir(pytester, run, monkeypatch):
    """A directory named in a marker is the project's, wherever pytest was called."""
    image = pytester.mkdir("image")
    (image / "mark").write_text("the project's")
    (image / "etc").mkdir()
    pytester.makeini("[pytest]")
    pytester.makepyfile(
        """
        import pathlib, pytest

        @pytest.mark.poor_container(rootfs="image")
        def test_directory(chroot_env):
            assert chroot_env.read("/mark") == "the project's"
            chroot_env.write("/mark", "mine")
            assert chroot_env.read("/mark") == "mine"
            assert (pathlib.Path(__file__).parent / "image/mark").read_text() == "the project's"

        @pytest.mark.poor_container(rootfs="image", readonly=True)
        def test_readonly(chroot_env):
            with pytest.raises(OSError, match="[Rr]ead-only"):
                chroot_env.write("/mark", "mine")
        """,
    )
    monkeypatch.chdir(pytester.mkdir("elsewhere"))
    run("--poor-container", f"--rootdir={pytester.path}", f"{pytester.path}").assert_outcomes(passed=2)


def test_a_root_that_is_not_there_is_an_error_that_names_it(pytester, run):
    """A path that nothing is at fails its own test when that begins, since a fixture might have made it."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.poor_container(rootfs="no/such/image")
        def test_missing(chroot_env): raise RuntimeError("ran")

        def test_other(chroot_env): pass
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E *UsageError: *no/such/image*"])


def test_each_test_gets_a_new_one_of_its_name(pytester, run):
    """Neither processes nor files of one test are seen by the next; the marker names the container."""
    pytester.makepyfile(
        """
        import os, pytest
        pids = []

        @pytest.mark.parametrize("n", range(3))
        @pytest.mark.poor_container(name="box")
        def test_env(chroot_env, n):
            assert chroot_env.run(["hostname"], capture_output=True, text=True).stdout == "box\\n"
            assert chroot_env.run(["mkdir", "/var/mark"]).returncode == 0
            assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
            assert chroot_env.pid not in pids
            pids.append(chroot_env.pid)
        """,
    )
    run("--poor-container").assert_outcomes(passed=3)


def test_the_factory_serves_wider_scopes(pytester, run):
    """A module's container keeps its files over several tests, beside the containers of the tests themselves."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def image(chroot_env_factory):
            with chroot_env_factory(name="image", rlimits={"nofile": 64}) as env:
                yield env

        def test_first(image):
            image.write("/srv/mark", "1")
            assert image.run(["sh", "-c", "ulimit -n"], capture_output=True, text=True).stdout == "64\\n"

        def test_second(image, chroot_env, chroot_env_factory):
            third = chroot_env_factory()
            assert image.read("/srv/mark") == "1"
            assert not chroot_env.exists("/srv/mark")
            assert len({one.pid for one in (image, chroot_env, third)}) == 3
        """,
    )
    run("--poor-container").assert_outcomes(passed=2)


def test_the_network_of_the_machine_on_request(pytester, run):
    """A container has no network but ``lo``, with network="host" the machine's interfaces."""
    pytester.makepyfile(
        """
        import os, pytest

        def interfaces(container):
            told = container.run(["cat", "/proc/net/dev"], capture_output=True, text=True).stdout
            return {line.split(":")[0].strip() for line in told.splitlines()[2:]}

        def test_none(chroot_env):
            assert "lo" in interfaces(chroot_env)
            assert "eth0" not in interfaces(chroot_env)

        @pytest.mark.poor_container(network="host")
        def test_host(chroot_env):
            assert interfaces(chroot_env) == set(os.listdir("/sys/class/net")) - {"bonding_masters"}
        """,
    )
    run("--poor-container").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("hots=1", "*unexpected keyword argument*hots*"),
        ("memory='64X'", "chroot_env_factory: memory=: *64X*"),
        ("rootfs=[]", "chroot_env_factory: rootfs=: expected 'host', *"),
        ("mounts=[{}]", "chroot_env_factory: mounts=: mount 1: kind is missing; *"),
        ("readonly=True", "readonly=True is for rootfs=: *"),
    ],
)
def test_the_factory_names_bad_arguments(pytester, run, arguments, message):
    """What the marker would not accept is an error, said in the same words."""
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_poorcontainer import UsageError

        def test_bad(chroot_env_factory):
            with pytest.raises((UsageError, TypeError)) as caught:
                chroot_env_factory({arguments})
            print(caught.value)
        """,
    )
    result = run("--poor-container", "-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*" + message])


LIMITED = """
    import pytest

    @pytest.mark.poor_container(memory="64M", pids=20, cpu=0.5)
    def test_limited(chroot_env): pass
"""


@pytest.mark.parametrize(("flag", "outcome"), [("--poor-container", "skipped"), ("--poor-container-require", "errors")])
def test_a_limit_that_cannot_be_kept_here_skips_or_fails(pytester, run, flag, outcome):
    """Where control groups cannot be had the test is skipped with the reason, and fails under ``require``."""
    pytester.makeconftest(
        """
        from pytest_poorcontainer import Unavailable
        from pytest_poorcontainer.container.limits import Limits

        def apply(self, handle):
            raise Unavailable("cgroup_limits", "nothing is delegated", "ask for it")

        Limits.apply = apply
        """,
    )
    pytester.makepyfile(LIMITED)
    result = run(flag, "-rA", subprocess=True)
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*cgroup_limits does not work here: nothing is delegated; ask for it"])


def test_hooks_are_told_of_every_container(pytester, run):
    """A project's hook prepares containers and hosts alike; hosts are announced as hosts after that."""
    pytester.makeconftest(
        """
        def pytest_poor_container_container_ready(container):
            container.write("/etc/prepared", "yes")
            print("CONTAINER", container.name)

        def pytest_poor_container_host_ready(host):
            print("HOST", host.name)
        """,
    )
    pytester.makepyfile(
        """
        def test_all(chroot_env, netns_pair):
            assert {one.read("/etc/prepared") for one in (chroot_env, *netns_pair)} == {"yes"}
        """,
    )
    result = run("--poor-container", "-s", "-v")
    result.assert_outcomes(passed=1)
    words = [word for word in " ".join(result.outlines).split() if word.isupper() or word in ("env", "a", "b")]
    assert " ".join(words).startswith("CONTAINER env CONTAINER a CONTAINER b HOST a HOST b")


def test_a_failure_shows_the_container(pytester, run):
    """Its report has name, level and root, across xdist too; a passed test has none of it."""
    pytester.mkdir("image").joinpath("etc").mkdir()
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.poor_container(rootfs="image", name="box")
        def test_fails(chroot_env): assert False
        """,
    )
    for args in ((), ("-n1",)):
        result = run("--poor-container", *args)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*- poor-container: hosts -*", "box: namespaces; directory *image"])
        result.stdout.no_fnmatch_line("*poor-container: links*")
