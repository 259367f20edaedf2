"""Which file a library's name means: the dynamic loader's rules, on file systems that exist in these tests alone."""

import io
import struct

import elfs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_poorcontainer.rootfs import ldcache
from pytest_poorcontainer.rootfs.libraries import Libraries, lacking

LOADER = "/lib64/ld-linux-x86-64.so.2"
MUSL = "/lib/ld-musl-x86_64.so.1"


def scope_of(files, program="/usr/bin/x"):
    """Return the scope of a program; files are paths to the arguments of elfs.build, or to bytes."""
    tree = {path: data if isinstance(data, bytes) else elfs.build(**data) for path, data in files.items()}

    def open_file(path):
        if path not in tree:
            raise FileNotFoundError(path)
        return io.BytesIO(tree[path])

    libraries = Libraries(open_file)
    return libraries.scope(program, libraries.look(program))


def paths_of(files):
    """Return the paths of the libraries in the order of loading."""
    return [one.path for one in scope_of(files).objects]


def program(needed, **rest):
    """Return the arguments for a program of glibc's."""
    return {"needed": needed, "interpreter": LOADER, **rest}


def test_default_directories_come_in_the_loader_s_order():
    """The machine's own directory before /lib64, that before /usr/lib."""
    files = {"/usr/bin/x": program(["liba.so"]), "/usr/lib/liba.so": {}, "/lib64/liba.so": {}}
    assert paths_of(files) == ["/lib64/liba.so"]
    assert paths_of({**files, "/lib/x86_64-linux-gnu/liba.so": {}}) == ["/lib/x86_64-linux-gnu/liba.so"]


def test_an_rpath_is_inherited_and_a_runpath_is_not():
    """DT_RPATH of who asked for the asking library counts, DT_RUNPATH only for its own needs."""
    files = {"/p/liba.so": {"needed": ["libb.so"]}, "/p/libb.so": {}}
    assert paths_of({**files, "/usr/bin/x": program(["liba.so"], rpath="/p")}) == ["/p/liba.so", "/p/libb.so"]
    scope = scope_of({**files, "/usr/bin/x": program(["liba.so"], runpath="/p")})
    assert [one.path for one in scope.objects] == ["/p/liba.so"]
    assert scope.missing == [("/p/liba.so", "libb.so")]


def test_a_library_with_a_runpath_does_not_inherit_an_rpath():
    """The asking library's own DT_RUNPATH ends the search through the chain."""
    files = {"/usr/bin/x": program(["liba.so"], rpath="/p"), "/p/liba.so": {"needed": ["libb.so"], "runpath": "/q"}}
    assert scope_of({**files, "/p/libb.so": {}}).missing == [("/p/liba.so", "libb.so")]


@pytest.mark.parametrize("written", ["$ORIGIN/../lib", "${ORIGIN}/../lib", "/opt/app/$LIB", "/opt/app/${LIB}"])
def test_tokens_are_expanded(written):
    """$ORIGIN is the directory of the file in which it stands, $LIB what distributions make of it."""
    files = {"/opt/app/bin/x": program(["liba.so"], runpath=written), "/opt/app/bin/../lib/liba.so": {}}
    files["/opt/app/lib/liba.so"] = {}
    found = scope_of(files, "/opt/app/bin/x").objects
    assert found[0].path in {"/opt/app/bin/../lib/liba.so", "/opt/app/lib/liba.so"}


def test_the_cache_comes_before_the_default_directories():
    """What ldconfig knows wins; a path that is not there any more is passed over."""
    files = {
        "/usr/bin/x": program(["liba.so", "libb.so"]),
        "/c/liba.so": {},
        "/lib64/liba.so": {},
        "/lib64/libb.so": {},
    }
    files[ldcache.PATH] = elfs.cache([("liba.so", "/c/liba.so"), ("libb.so", "/gone/libb.so")])
    assert paths_of(files) == ["/c/liba.so", "/lib64/libb.so"]


def test_no_default_library_directory_is_heeded():
    """With DF_1_NODEFLIB only the cache's entries elsewhere count."""
    files = {"/usr/bin/x": program(["liba.so"], no_default=True), "/lib64/liba.so": {}, "/c/liba.so": {}}
    files[ldcache.PATH] = elfs.cache([("liba.so", "/lib64/liba.so"), ("liba.so", "/c/liba.so")])
    assert paths_of(files) == ["/c/liba.so"]


def test_a_library_for_another_machine_is_passed_over():
    """Class and machine have to be the program's."""
    files = {"/usr/bin/x": program(["liba.so"]), "/lib64/liba.so": {"machine": elfs.AARCH64}}
    assert paths_of({**files, "/lib/liba.so": {"bits": 32}, "/usr/lib/liba.so": {}}) == ["/usr/lib/liba.so"]
    assert scope_of(files).missing == [("/usr/bin/x", "liba.so")]


def test_what_is_loaded_under_its_soname_is_not_searched_again():
    """A name that a loaded library bears as its soname is that library; the loader itself is loaded, too."""
    files = {"/usr/bin/x": program(["/p/a.so", "liba.so.1", "ld-linux-x86-64.so.2"]), LOADER: {}}
    files["/p/a.so"] = {"soname": "liba.so.1"}
    scope = scope_of(files)
    assert ([one.path for one in scope.objects], scope.missing) == (["/p/a.so"], [])


def test_loading_goes_breadth_first():
    """Who comes first decides which file a name means: the program's needs before those of its libraries."""
    files = {
        "/usr/bin/x": program(["liba.so", "libc.so"], runpath="/p"),
        "/p/liba.so": {"needed": ["libc.so"], "runpath": "/q"},
    }
    assert paths_of({**files, "/p/libc.so": {}, "/q/libc.so": {}}) == ["/p/liba.so", "/p/libc.so"]


def test_variants_for_better_processors_come_along():
    """The plain library is what counts here, the container may choose another one."""
    files = {
        "/usr/bin/x": program(["liba.so"], runpath="/p"),
        "/p/liba.so": {},
        "/p/glibc-hwcaps/x86-64-v3/liba.so": {},
    }
    scope = scope_of(files)
    assert [one.path for one in scope.objects] == ["/p/liba.so"]
    assert scope.variants == ["/p/glibc-hwcaps/x86-64-v3/liba.so"]


def test_a_circle_of_libraries_ends():
    """Each is loaded once."""
    files = {"/usr/bin/x": program(["liba.so"]), "/lib/liba.so": {"needed": ["libb.so"]}}
    assert paths_of({**files, "/lib/libb.so": {"needed": ["liba.so"]}}) == ["/lib/liba.so", "/lib/libb.so"]


def test_musl_has_its_own_rules():
    """The loader is libc itself, runpaths are inherited, and a .path file replaces the default directories."""
    files = {
        "/b/x": {
            "needed": ["liba.so", "libc.musl-x86_64.so.1", "libpthread.so.0"],
            "interpreter": MUSL,
            "runpath": "/p",
        }
    }
    files |= {
        "/p/liba.so": {"needed": ["libb.so", "libd.so"]},
        "/p/libb.so": {},
        "/usr/local/lib/libd.so": {},
        MUSL: {},
    }
    scope = scope_of(files, "/b/x")
    assert [one.path for one in scope.objects] == ["/p/liba.so", "/p/libb.so", "/usr/local/lib/libd.so"]
    assert not scope.missing
    files["/etc/ld-musl-x86_64.path"] = b"/m\n/n:/o\n"
    assert scope_of(files, "/b/x").missing == [("/p/liba.so", "libd.so")]
    assert scope_of({**files, "/o/libd.so": {}}, "/b/x").objects[-1].path == "/o/libd.so"


def test_what_is_missing_is_said_of_one_file():
    """Who needs it, and all that it lacks."""
    files = {"/usr/bin/x": program(["liba.so", "libb.so", "libc.so"]), "/lib/libb.so": {"needed": ["libz.so"]}}
    assert lacking(scope_of(files).missing) == "/usr/bin/x needs liba.so, libc.so, which are not there"


def test_a_cache_behind_one_of_the_old_format_is_found():
    """Until glibc 2.32 ldconfig wrote both into one file."""
    new = elfs.cache([("liba.so", "/c/liba.so")])
    old = b"ld.so-1.7.0\0" + struct.pack("I", 1) + bytes(12) + bytes(4)
    assert ldcache.parse(old + new) == {"liba.so": ("/c/liba.so",)}


def test_the_machine_s_cache_is_understood():
    """Every path in it that ldconfig -p would print is absolute, and there are some."""
    try:
        with open(ldcache.PATH, "rb") as file:  # noqa: PTH123
            found = ldcache.parse(file.read())
    except FileNotFoundError:
        pytest.skip("this machine has no ld.so.cache: its C library is not glibc")
    assert found
    assert all(path.startswith("/") for paths in found.values() for path in paths)


@given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_cache_is_no_error(tail, at, value):
    """The loader goes on without it, and so do we."""
    whole = bytearray(elfs.cache([("liba.so", "/c/liba.so"), ("libb.so", "/c/libb.so")]))
    whole[at % len(whole)] = value
    for data in (bytes(whole), bytes(whole)[:at], b"glibc-ld.so.cache1.1" + tail, b"ld.so-1.7.0" + tail):
        assert isinstance(ldcache.parse(data), dict)
