"""The chart on a real API server: what Helm makes of it, what it may do, and pods that its webhook changes."""
