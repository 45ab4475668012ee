"""The tabletop arm, its tasks, and the protocol that other simulators meet."""
