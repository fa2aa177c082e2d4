"""A world of rendered people in which the whole chain can be watched on a bare machine: ``posesyn demo``."""
