"""The stream at scale: 1,000 proxies and 2,000 endpoints. `python -m bench.stream.scale`."""
