"""The order of the stages: whole runs in one folder."""
