"""Counts on the hot path as plain integers, and what makes metrics, reports, an access log and decision records of them."""
