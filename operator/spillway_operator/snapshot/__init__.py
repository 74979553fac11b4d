"""Pure: resources, endpoints and weights become wire resources; states, their differences, and the seam to the carrier."""
