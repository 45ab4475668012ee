"""Readers of robot recordings, one a format, and the writer that `collect` uses."""
