"""Parsers for what servers call a directory: any bytes in, a :class:`~..entries.Listing` out, never an exception."""
