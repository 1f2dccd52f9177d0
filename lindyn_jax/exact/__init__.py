"""Closed-form solutions, one a file, independent of the simulators."""
