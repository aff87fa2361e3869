"""Container images: pulled or loaded by skopeo into a store of this machine, unpacked into layers for overlay roots.

No container code: what runs them is an OCI runtime, under the kubelet's shim.
"""
