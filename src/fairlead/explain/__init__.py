"""Why a pod can, or cannot, reach a service. Pure: evidence in; hops, findings and a verdict out.

Stands between discovery, proxy and dns, whose own decisions it asks for what should be, and the command line. The shell
that gathers the evidence is `fairlead.survey`. Invariant: what was not seen is said, and never taken for absent.
"""
