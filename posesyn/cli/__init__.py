"""The ``posesyn`` command."""
