"""Talks to the API server: the only importer of `kubernetes`, and of that only what knows kubeconfig files and credentials.

- `access`: where the API server is and how we show who we are.
- `api`: one request and its answer, each with a deadline.
- `lease`: who leads, with an epoch for each term.
- `status`: statuses written by server-side apply, within a budget.
- `transitions`, `events`: what changed for good or bad, as Kubernetes Events.
- `scale`, `autoscalers`: replicas through the scale subresource, and who else sets them.
- `deletion_cost`: which pods go first.
- `leader_label`: which pod a Service for the leader selects.
- `reviews`: whose a token is.
"""
