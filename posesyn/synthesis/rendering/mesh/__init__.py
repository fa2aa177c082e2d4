"""The renderer that is shipped: a z-buffer in plain torch."""
