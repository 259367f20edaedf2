"""Makes tar archives for tests, also such as no tar program would make."""

import io
import tarfile

MODES = {"": "w", "gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}


def entry(name, content=None, kind=tarfile.REGTYPE, **attributes):
    """Return a member of an archive and its content."""
    member = tarfile.TarInfo(name)
    member.type = kind
    member.size = len(content or b"")
    for key, value in attributes.items():
        setattr(member, key, value)
    return member, content


def directory(name, mode=0o755, **attributes):
    """Return a directory."""
    return entry(name, kind=tarfile.DIRTYPE, mode=mode, **attributes)


def symlink(name, target):
    """Return a symbolic link."""
    return entry(name, kind=tarfile.SYMTYPE, linkname=target)


def hardlink(name, target):
    """Return a hard link."""
    return entry(name, kind=tarfile.LNKTYPE, linkname=target)


def archive(*entries, compression="", form=tarfile.PAX_FORMAT):
    """Return an archive as bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=MODES[compression], format=form) as tar:
        for member, content in entries:
            tar.addfile(member, io.BytesIO(content) if content is not None else None)
    return file.getvalue()


def header(name, kind=tarfile.REGTYPE, size=0, **attributes):
    """Return the 512 bytes of a header, which may promise anything."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    for key, value in attributes.items():
        setattr(member, key, value)
    return member.tobuf(tarfile.GNU_FORMAT)
