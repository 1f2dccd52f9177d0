"""Statements of the papers as functions of a state, independent of the simulators."""
