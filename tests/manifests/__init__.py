"""The Kubernetes documentation's manifests, if a copy of them is at hand: `MANIFESTS=DIR python -m tests.manifests`."""
