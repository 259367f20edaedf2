"""Captured frames: the recorder's, a capture's; what is in them, as pcapng, as conversations, as ladder diagrams."""
