"""The console commands: one file each, which reads the arguments and calls the library."""
