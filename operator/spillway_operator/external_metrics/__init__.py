"""The external metrics API of Kubernetes (external.metrics.k8s.io/v1beta1), for HorizontalPodAutoscalers on a backend's figures.

- `front_proxy`: whether a connection is the API server's.
- `answers`: requests -> documents. Pure.
- `server`: the listener.
"""
