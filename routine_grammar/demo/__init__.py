"""The embedded demo: a small random-weight model made offline, and demo Routines."""
