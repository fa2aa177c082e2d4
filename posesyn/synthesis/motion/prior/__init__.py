"""The motion prior: motions as tokens, and the transformer that writes them from text."""
