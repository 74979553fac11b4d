"""Pickers take one of those that are left."""
