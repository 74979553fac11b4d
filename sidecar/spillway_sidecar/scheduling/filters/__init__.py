"""Filters take endpoints out of a decision."""
