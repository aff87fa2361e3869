"""Volumes, claims and classes through every kubectl, against an API server alone."""

from __future__ import annotations

import json


def volume(kubectl, **spec):
    name = f"pv-{kubectl.namespace}"
    made = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/mnt/data"}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": made}


def claim(**spec):
    made = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": made}


def test_volumes_claims_and_classes(kubectl):
    """Applied twice, shown by their short names, described, patched, refused, deleted."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": f"sc-{kubectl.namespace}"},
        "provisioner": "example.com/disks",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    objects = (volume(kubectl), claim(storageClassName=storage_class["metadata"]["name"]), storage_class)
    kubectl.apply(*objects)
    assert kubectl.apply(*objects).count("unchanged") == 3
    name = objects[0]["metadata"]["name"]
    assert kubectl("get", "pv", name, "--no-headers").split()[1:5] == ["1Gi", "RWO", "Retain", "Pending"]
    assert kubectl("get", "pvc", "--no-headers").split()[:2] == ["data", "Pending"]
    assert "example.com/disks" in kubectl("get", "sc", storage_class["metadata"]["name"])
    assert "WaitForFirstConsumer" in kubectl("describe", "sc", storage_class["metadata"]["name"])
    assert "/mnt/data" in kubectl("describe", "pv", name)
    assert "VolumeMode:    Filesystem" in kubectl("describe", "pvc", "data")
    said = kubectl.fails("patch", "pvc", "data", "-p", '{"spec":{"accessModes":["ReadWriteMany"]}}')
    assert "spec is immutable after creation except resources.requests" in said
    said = kubectl.fails("apply", "-f", "-", stdin=json.dumps(volume(kubectl, hostPath={"path": "/other"})))
    assert "spec.persistentvolumesource is immutable after creation" in said
    kubectl("patch", "pv", name, "-p", '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}')
    assert "Delete" in kubectl("get", "pv", name)
    for what in ("pv", "pvc"):  # what protects them is taken away by controllers, which are not here
        which = name if what == "pv" else "data"
        kubectl("delete", what, which, "--wait=false")
        assert "Terminating" in kubectl("get", what, which)
        kubectl("patch", what, which, "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
        assert "NotFound" in kubectl.fails("get", what, which)
    kubectl("delete", "sc", storage_class["metadata"]["name"])
