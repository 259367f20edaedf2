"""Sources for tests: small servers that behave, or misbehave as they are told."""
