"""Training: one loop, one engine, three tasks."""
