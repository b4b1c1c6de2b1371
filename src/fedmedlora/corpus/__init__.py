"""Annotated text in and out: a module a format, mappings, counts, and synthetic sites."""
