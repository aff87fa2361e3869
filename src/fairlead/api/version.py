"""The Kubernetes release whose API this is: what kubectl compares itself with, and what a node says it runs.

Invariant: the structure data in api/data was derived from this release.
"""

MAJOR, MINOR = "1", "37"
GIT_VERSION = f"v{MAJOR}.{MINOR}.0+fairlead"
