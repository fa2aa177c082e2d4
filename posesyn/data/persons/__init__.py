"""Data sets of photographs, one file per format."""
