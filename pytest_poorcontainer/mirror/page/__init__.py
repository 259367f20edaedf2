"""The status page: written as files at each change of state, and served live."""
