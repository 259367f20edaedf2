"""Where mirrors come from. Ours register as plugins do; see ``hookspecs``."""
