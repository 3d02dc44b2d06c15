"""Graphs from files of other systems: one module a format."""
