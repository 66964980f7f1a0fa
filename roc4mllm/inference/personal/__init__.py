"""One person's taste."""
