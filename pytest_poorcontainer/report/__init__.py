"""What a failed test shows: a look at its hosts, as text for the terminal and as files. Imports no pytest."""
