"""Asking hosts and their sockets, for tests of several files."""


def peer(server):
    """Accept a connection, close it, and return the address that it came from."""
    connection, address = server.accept()
    connection.close()
    return address[0]


def told(container, *argv):
    """Return what a command prints in the container; it must succeed."""
    return container.run(list(argv), capture_output=True, text=True, check=True).stdout
