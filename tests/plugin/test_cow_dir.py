"""``cow_dir``, ``cow_dir_factory`` and ``prepared``: what a test gets, what fails it, what is left of it."""

from __future__ import annotations

import tarfile

import pytest

pytestmark = pytest.mark.poor_container

SOURCE = """
    import pytest

    @pytest.fixture(scope="session")
    def app(tmp_path_factory):
        directory = tmp_path_factory.mktemp("app")
        (directory / "VERSION").write_text("1\\n")
        (directory / "old.db").write_text("old")
        script = "#!/bin/sh\\necho 2 > VERSION; rm old.db; echo n > new.db\\n"
        (directory / "upgrade.sh").write_text(script)
        (directory / "upgrade.sh").chmod(0o755)
        return directory
"""


@pytest.fixture
def app(pytester):
    """Give the inner run an original to make trees of."""
    pytester.makeconftest(SOURCE)


def test_a_directory_that_a_test_may_ruin(pytester, run, app):
    """Each test has it as it was; the difference is a dict; a container sees the tree where it wants it."""
    pytester.makepyfile(
        """
        def test_upgrade(cow_dir, app):
            tree = cow_dir(app)
            tree.run(["./upgrade.sh"], check=True)
            assert tree.diff() == {"VERSION": "modified", "old.db": "deleted", "new.db": "added"}
            tree.assert_only_changed("VERSION", "*.db")

        def test_again(cow_dir, app, chroot_env):
            tree = cow_dir(app)
            tree.assert_unchanged()
            chroot_env.mount(tree, "/srv/app")
            chroot_env.run(["rm", "/srv/app/VERSION"], check=True)
            assert tree.diff() == {"VERSION": "deleted"}
            assert (app / "VERSION").exists()

        def test_hosts(cow_dir, app, netns_pair):
            tree = cow_dir(app)
            for host in netns_pair:
                host.mount(tree, "/opt/app")
                host.run(["sh", "-c", "echo $(hostname) >> /opt/app/names"], check=True)
            assert tree.read_text("names").split() == ["a", "b"]
        """,
    )
    run("--poor-container").assert_outcomes(passed=3)


def test_a_root_that_a_test_may_ruin(pytester, run):
    """rootfs= of the factories takes a tree, on each backend with a path; for one without the error says what does."""
    pytester.makepyfile(
        """
        import shutil, subprocess
        import pytest
        from pytest_poorcontainer import UsageError

        @pytest.fixture
        def image(tmp_path):
            for name in ("dev", "etc", "proc", "run", "sys", "tmp", "bin"):
                (tmp_path / "image" / name).mkdir(parents=True)
            for name in ("hosts", "hostname", "resolv.conf"):
                (tmp_path / "image/etc" / name).touch()
            program = shutil.which("sh")
            loaded = subprocess.run(["ldd", program], capture_output=True, text=True).stdout.split()
            for path in (program, *(word for word in loaded if word.startswith("/"))):
                place = tmp_path / "image" / path[1:]
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)
            return tmp_path / "image"

        @pytest.mark.parametrize("backend", ["auto", "copy"])
        def test_it(cow_dir, chroot_env_factory, netns_factory, image, backend):
            tree = cow_dir(image, backend=backend)
            with chroot_env_factory(rootfs=tree) as env:
                env.run(["sh", "-c", "echo x > /etc/new"], check=True)
            with netns_factory(rootfs=tree) as (first, second):
                first.run(["sh", "-c", "echo y > /more"], check=True)
                assert second.read("/more") == "y\\n"
            assert tree.diff() == {"etc/new": "added", "more": "added"}

        def test_preload(cow_dir, chroot_env_factory, image):
            with pytest.raises(UsageError, match="backend='overlay' or 'copy'"):
                chroot_env_factory(rootfs=cow_dir(image, backend="preload"))
        """,
    )
    run("--poor-container").assert_outcomes(passed=3)


def test_a_failed_test_shows_what_has_changed(pytester, run, app):
    """The report has the lines that differ, for each open tree, with its backend."""
    pytester.makepyfile(
        """
        def test_wrong(cow_dir, app):
            cow_dir(app).run(["./upgrade.sh"], check=True)
            assert False
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*poor-container: * tree of */app0*", "modified VERSION", "*-1*", "*+2*"])


def test_damage_to_the_original_fails_the_test(pytester, run, app):
    """Not an error of some fixture's, but the failure of the test that did it, with the path; the next one passes."""
    pytester.makepyfile(
        """
        def test_damage(cow_dir, app):
            tree = cow_dir(app)
            (app / "VERSION").write_text("damage")

        def test_next(cow_dir, app):
            cow_dir(app)
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*the original *app0 of a copy-on-write tree * was changed:", "*/app0/VERSION"])


def test_damage_by_a_fixtures_teardown_is_an_error(pytester, run, app):
    """What is done to the original after the test is found too."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def careless(cow_dir, app):
            tree = cow_dir(app)
            yield tree
            (app / "VERSION").write_text("damage")

        def test_it(careless):
            pass
        """,
    )
    run("--poor-container").assert_outcomes(passed=1, errors=1)


@pytest.mark.parametrize("how", ["flag", "ini", "argument"])
def test_nobody_looks_where_that_is_not_wanted(pytester, run, app, how):
    """By the option, by the ini key, for one tree."""
    pytester.makeini(f"[pytest]\npoor_container_tripwire = {'no' if how == 'ini' else 'yes'}")
    pytester.makepyfile(
        f"""
        def test_damage(cow_dir, app):
            tree = cow_dir(app, tripwire={how != "argument"})
            (app / "VERSION").write_text("damage")
        """,
    )
    flags = ["--poor-container-tripwire=no"] if how == "flag" else []
    run("--poor-container", *flags).assert_outcomes(passed=1)


def test_a_large_original_is_looked_at_once(pytester, run):
    """Above 5,000 files it is looked at when the session ends, and the damage is told then."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def large(tmp_path_factory):
            directory = tmp_path_factory.mktemp("large")
            for number in range(5100):
                (directory / str(number)).touch()
            return directory

        def test_damage(cow_dir, large):
            cow_dir(large)
            (large / "7").write_text("damage")

        def test_other(cow_dir, large):
            cow_dir(large)
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*/large0/7"])


def test_all_that_was_damaged_is_told(pytester, run):
    """Two large originals, and a small one whose tree is closed in the end: one failure hides none of the others."""
    pytester.makepyfile(
        """
        def test_damage(cow_dir_factory, tmp_path_factory):
            for name, count in (("first", 5100), ("second", 5100), ("small", 1)):
                directory = tmp_path_factory.mktemp(name)
                for number in range(count):
                    (directory / str(number)).touch()
                cow_dir_factory(directory)
                if count > 1:
                    (directory / "0").write_text("damage")

        def test_last(cow_dir_factory):
            def fail():
                raise OSError("small0 cannot be looked at")

            cow_dir_factory._made[-1].check_original = fail
        """,
    )
    result = run("--poor-container", "-p", "no:randomly")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    told = result.stdout.str()
    assert all(what in told for what in ("/first0/0", "/second0/0", "small0 cannot be looked at"))


def test_a_tree_of_which_damage_was_told_does_not_vouch_for_others(pytester, run):
    """Trees come and go, and a new one may be where a damaged one has been in memory."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def original(tmp_path_factory):
            return tmp_path_factory.mktemp("original")

        @pytest.mark.parametrize("number", range(12))
        def test_damage(cow_dir, original, number):
            cow_dir(original, backend="copy")
            (original / str(number)).touch()
        """,
    )
    run("--poor-container").assert_outcomes(failed=12)


def test_a_factory_for_wider_scopes(pytester, run, app):
    """A tree of a module's; a relative path is the project's; what is not closed is closed in the end."""
    pytester.mkdir("files").joinpath("x").write_text("x")
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def shared(cow_dir_factory):
            with cow_dir_factory("files", backend="copy") as tree:
                yield tree

        def test_one(shared):
            shared.write_text("x", "changed")
            assert shared.backend == "copy" and shared.reason == "it was asked for"

        def test_two(shared, cow_dir_factory, cow_dir):
            assert shared.read_text("x") == "changed"
            cow_dir_factory("files")
            assert cow_dir(shared).read_text("x") == "changed"
        """,
    )
    run("--poor-container").assert_outcomes(passed=2)


def test_data_is_prepared_once_for_all_workers(pytester, run):
    """Two workers, one call of build; every test starts on the same data and keeps its changes to itself."""
    pytester.makepyfile(
        """
        import os, time
        import pytest

        CALLS = os.path.join(os.path.dirname(__file__), "calls")

        def build(tree):
            with open(CALLS, "a") as file:
                file.write("called ")
            tree.run(["sh", "-c", "sleep 0.2; echo prepared > data; mkdir d; echo x > d/x"], check=True)

        @pytest.mark.parametrize("number", range(6))
        def test_data(prepared, number):
            tree = prepared("data", build, place="/srv/data")
            assert tree.read_text("data") == "prepared\\n"
            assert tree.diff() == {}
            tree.run(["sh", "-c", "cd /srv/data && rm -r d && echo $0 > data", str(number)], check=True)
            assert tree.diff() == {"data": "modified", "d": "deleted", "d/x": "deleted"}
            assert prepared("data", build).read_text("data") == "prepared\\n"
            assert open(CALLS).read() == "called "
        """,
    )
    run("--poor-container", "-n", "2", plugins=("xdist",), subprocess=True).assert_outcomes(passed=6)
    assert (pytester.path / "calls").read_text() == "called "


@pytest.mark.parametrize("backend", ["overlay", "preload", "copy"])
def test_one_original_for_all_workers(pytester, run, tmp_path, backend):
    """Trees of two processes on one original at the same time: each sees its own changes, and it is as it was."""
    app = tmp_path / "original"
    app.mkdir()
    (app / "VERSION").write_text("original\n")
    before = {path: path.lstat().st_ctime_ns for path in (app, *app.rglob("*"))}
    pytester.makepyfile(
        f"""
        import pathlib, time
        import pytest

        HERE = pathlib.Path({str(pytester.path)!r})

        @pytest.mark.parametrize("number", range(2))
        def test_both_at_once(cow_dir, number):
            tree = cow_dir({str(app)!r}, backend={backend!r})
            assert tree.backend == {backend!r}
            tree.run(["sh", "-c", f"echo {{number}} > VERSION; echo x > only-{{number}}"], check=True)
            (HERE / f"ready-{{number}}").touch()
            until = time.monotonic() + 30
            while not (HERE / f"ready-{{1 - number}}").exists():
                assert time.monotonic() < until, "the other worker's tree was not made"
                time.sleep(0.01)
            assert tree.read_text("VERSION") == f"{{number}}\\n"
            assert tree.diff() == {{"VERSION": "modified", f"only-{{number}}": "added"}}
        """,
    )
    run("--poor-container", "-n", "2", plugins=("xdist",), subprocess=True).assert_outcomes(passed=2)
    assert {path: path.lstat().st_ctime_ns for path in (app, *app.rglob("*"))} == before


def test_a_build_that_fails(pytester, run):
    """Its error is the test's; the next test tries again; a name is one builder's."""
    pytester.makepyfile(
        """
        import pytest

        calls = []

        def build(tree):
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("no luck")

        def test_first(prepared):
            prepared("x", build)

        def test_second(prepared):
            prepared("x", build)
            with pytest.raises(ValueError, match="choose another name"):
                prepared("x", lambda tree: None)
            with pytest.raises(ValueError, match="is a word"):
                prepared("a/b", build)
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*ValueError: no luck"])


def test_nothing_is_left_of_trees(pytester, run, app):
    """Neither copies nor prepared data are in the temporary directories when the session has ended."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("backend", ["auto", "copy"])
        def test_it(cow_dir, prepared, app, backend):
            cow_dir(app, backend=backend).run(["./upgrade.sh"], check=True)
            prepared("p" + backend, lambda tree: tree.run(["touch", "x"]), backend=backend)
        """,
    )
    base = pytester.path / "base"
    run("--poor-container", f"--basetemp={base}").assert_outcomes(passed=2)
    assert sorted(path.name for path in base.iterdir() if not path.is_symlink()) == ["app0"]


def test_changes_of_failed_tests_are_kept(pytester, run, app):
    """With --poor-container-keep=failed they are in a file that outlives the session, which the report names."""
    pytester.makepyfile(
        """
        def test_wrong(cow_dir, app):
            cow_dir(app).run(["./upgrade.sh"], check=True)
            assert False
        """,
    )
    base = pytester.path / "base"
    result = run("--poor-container", "--poor-container-keep=failed", f"--basetemp={base}")
    result.stdout.fnmatch_lines(["kept as a layer of an image: *.tar"])
    [kept] = (base / "poor-container-trees").iterdir()
    with tarfile.open(kept) as tar:
        assert set(tar.getnames()) == {"VERSION", ".wh.old.db", "new.db"}


def test_off_means_skipped(pytester, run):
    """Without the flag none of the three is built."""
    pytester.makepyfile(
        """
        def test_one(cow_dir): pass
        def test_two(prepared): pass
        def test_three(cow_dir_factory): pass
        """,
    )
    result = run("--no-poor-container")
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(["*3 tests were skipped because it is off*"])


def test_a_backend_that_does_not_work_here_is_a_skip(pytester, run):
    """Or, under require, a failure; with the reason and what to do about it."""
    pytester.makepyfile(
        """
        def test_it(cow_dir, tmp_path):
            (tmp_path / "file").write_text("content")
            cow_dir(tmp_path, backend="reflink")

        def test_typo(cow_dir, tmp_path):
            cow_dir(tmp_path, backend="overly")
        """,
    )
    works = run("--poor-container", "-k", "test_it")
    if works.parseoutcomes().get("passed"):
        pytest.skip("files can be cloned here (btrfs, xfs)")
    works.assert_outcomes(skipped=1, deselected=1)
    result = run("--poor-container-require", "-rA")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*cow backend reflink does not work here*", "*did you mean 'overlay'?*"])
