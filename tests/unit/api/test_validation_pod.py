"""Pods: what is refused when they are made and bound."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fairlead.api import defaults, kinds, validation

META = {"name": "web-1", "namespace": "shop"}
IMAGE = {"name": "c", "image": "x:1"}


def pod(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A defaulted pod, with one container unless told otherwise."""
    obj = copy.deepcopy({"metadata": META, "spec": {"containers": [IMAGE], **spec}, **more})
    defaults.apply(kinds.PODS, obj)
    return obj


def one(**container: Any) -> dict[str, Any]:
    """A spec with one container."""
    return {"containers": [{**IMAGE, **container}]}


def found(obj: dict[str, Any]) -> list[str]:
    return [str(e) for e in validation.validate_create(kinds.PODS, obj)]


C = "spec.containers[0]"
CONTAINERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": (one(), []),
    "none": ({"containers": []}, ["spec.containers: Required value"]),
    "no name, no image": (
        {"containers": [{}]},
        [f"{C}.name: Required value", f"{C}.image: Required value"],
    ),
    "name": (one(name="a.b"), [f'{C}.name: Invalid value: "a.b": must not contain dots']),
    "name twice": (
        {"containers": [IMAGE, IMAGE]},
        ['spec.containers[1].name: Duplicate value: "c"'],
    ),
    "image with a space": (
        one(image="x:1 "),
        [f'{C}.image: Invalid value: "x:1 ": must not have leading or trailing whitespace'],
    ),
    "pull policy": (
        one(imagePullPolicy="Sometimes"),
        [f'{C}.imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"'],
    ),
    "restart policy of a main container": (
        one(restartPolicy="Always"),
        [f"{C}.restartPolicy: Forbidden: may not be set for non-init containers"],
    ),
    "ports": (
        one(
            ports=[
                {"name": "HTTP", "containerPort": 80},
                {"containerPort": 0},
                {"containerPort": 70000, "protocol": "X"},
                {"containerPort": 1, "hostPort": -1},
            ]
        ),
        [
            f'{C}.ports[0].name: Invalid value: "HTTP": must contain only alpha-numeric characters (a-z, 0-9), and '
            "hyphens (-)",
            f'{C}.ports[0].name: Invalid value: "HTTP": must contain at least one letter (a-z)',
            f"{C}.ports[1].containerPort: Required value",
            f"{C}.ports[2].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            f'{C}.ports[2].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"',
            f"{C}.ports[3].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive",
        ],
    ),
    "port name twice": (
        one(ports=[{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]),
        [f'{C}.ports[1].name: Duplicate value: "a"'],
    ),
    "host port twice": (
        {"containers": [{**IMAGE, "name": n, "ports": [{"containerPort": 1, "hostPort": 80}]} for n in "ab"]},
        ['spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"'],
    ),
    "host port unlike the port": (
        {**one(ports=[{"containerPort": 1, "hostPort": 80}]), "hostNetwork": True},
        [
            f"{C}.ports[0].hostPort: Invalid value: 80: must match `containerPort` when `hostNetwork` is true",
        ],
    ),
    "variables": (
        one(
            env=[
                {"name": "A=B"},
                {"value": "x"},
                {"name": "E", "valueFrom": {}},
                {"name": "F", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "G", "valueFrom": {"fieldRef": {"fieldPath": "spec.hostname"}}},
                {"name": "H", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}},
                {"name": "I", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
                {"name": "J", "valueFrom": {"configMapKeyRef": {"name": "c", "key": ""}}},
                {"name": "K", "valueFrom": {"resourceFieldRef": {"resource": "limits.disk"}}},
                {"name": "L", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}},
            ]
        ),
        [
            f'{C}.env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable '
            "ASCII characters other than '='",
            f"{C}.env[1].name: Required value",
            f'{C}.env[2].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, '
            "`configMapKeyRef` or `secretKeyRef`",
            f'{C}.env[3].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
            f'{C}.env[4].valueFrom.fieldRef.fieldPath: Invalid value: "spec.hostname": error converting fieldPath: '
            "field label not supported: spec.hostname",
            f'{C}.env[5].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: '
            '"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", '
            '"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"',
            f"{C}.env[7].valueFrom.configMapKeyRef.key: Required value",
            f'{C}.env[8].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.disk": supported values: '
            '"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", '
            '"requests.ephemeral-storage", "requests.memory"',
            f'{C}.env[9].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor\'s values 1m '
            "and 1 are supported with the cpu resource",
        ],
    ),
    "variables from elsewhere": (
        one(envFrom=[{"configMapRef": {"name": "c"}, "prefix": "P_"}, {}, {"secretRef": {}}]),
        [
            f'{C}.envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`',
            f"{C}.envFrom[2].secretRef.name: Required value",
        ],
    ),
    "probes": (
        one(
            readinessProbe={"httpGet": {"port": "http"}, "exec": {"command": ["x"]}, "initialDelaySeconds": -1},
            livenessProbe={"tcpSocket": {"port": 0}, "successThreshold": 2},
            startupProbe={"periodSeconds": 1},
        ),
        [
            f"{C}.livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            f"{C}.livenessProbe.successThreshold: Invalid value: 2: must be 1",
            f"{C}.readinessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
            f"{C}.readinessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0",
            f"{C}.startupProbe: Required value: must specify a handler type",
        ],
    ),
    "probe by a strange scheme and header": (
        one(livenessProbe={"httpGet": {"port": 80, "scheme": "FTP", "httpHeaders": [{"name": "a b"}]}}),
        [
            f'{C}.livenessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS"',
            f'{C}.livenessProbe.httpGet.httpHeaders: Invalid value: "a b": a valid HTTP header must consist of '
            "alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
        ],
    ),
    "hooks": (
        one(lifecycle={"preStop": {"sleep": {"seconds": 60}}, "postStart": {"exec": {}}}),
        [
            f"{C}.lifecycle.postStart.exec.command: Required value",
            f"{C}.lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than "
            "terminationGracePeriodSeconds (30)",
        ],
    ),
    "resources": (
        one(
            resources={
                "limits": {"cpu": "1", "disk": "1", "memory": "-1", "example.com/gpu": "0.5"},
                "requests": {"cpu": "1500m", "memory": "x"},
            }
        ),
        [
            f'{C}.resources.limits[disk]: Invalid value: "disk": must be a standard resource type or fully qualified',
            f'{C}.resources.limits[disk]: Invalid value: "disk": must be a standard resource for containers',
            f'{C}.resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0',
            f'{C}.resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer',
            f'{C}.resources.requests: Invalid value: "1500m": must be less than or equal to cpu limit of 1',
            f'{C}.resources.requests[memory]: Invalid value: "x": quantities must match the regular expression '
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            f'{C}.resources.requests[disk]: Invalid value: "disk": must be a standard resource type or fully qualified',
            f'{C}.resources.requests[disk]: Invalid value: "disk": must be a standard resource for containers',
            f'{C}.resources.requests[example.com/gpu]: Invalid value: "500m": must be an integer',
        ],
    ),
    "mounts": (
        {
            **one(
                volumeMounts=[
                    {"name": "v", "mountPath": "/a"},
                    {"name": "w", "mountPath": "/a"},
                    {"name": "v", "mountPath": "", "subPath": "../x"},
                    {"name": "v", "mountPath": "/b", "mountPropagation": "Bidirectional"},
                ]
            ),
            "volumes": [{"name": "v"}],
        },
        [
            f'{C}.volumeMounts[1].name: Not found: "w"',
            f'{C}.volumeMounts[1].mountPath: Invalid value: "/a": must be unique',
            f"{C}.volumeMounts[2].mountPath: Required value",
            f"{C}.volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'",
            f"{C}.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to "
            "privileged containers",
        ],
    ),
    "security": (
        one(securityContext={"runAsUser": -1, "allowPrivilegeEscalation": False, "privileged": True}),
        [
            f"{C}.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            f'{C}.securityContext: Invalid value: {{"runAsUser":-1,"allowPrivilegeEscalation":false,'
            '"privileged":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true',
        ],
    ),
    "init containers": (
        {
            **one(),
            "initContainers": [
                {**IMAGE, "readinessProbe": {"exec": {"command": ["x"]}}},
                {"name": "s", "image": "x:1", "restartPolicy": "Always", "livenessProbe": {}},
                {"name": "t", "image": "x:1", "restartPolicy": "Never"},
            ],
        },
        [
            'spec.initContainers[0].name: Duplicate value: "c"',
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without "
            "restartPolicy=Always",
            "spec.initContainers[1].livenessProbe: Required value: must specify a handler type",
            'spec.initContainers[2].restartPolicy: Unsupported value: "Never": supported values: "Always"',
        ],
    ),
}

SPECS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "policies": (
        {"restartPolicy": "Maybe", "dnsPolicy": "First"},
        [
            'spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"',
            'spec.dnsPolicy: Unsupported value: "First": supported values: "ClusterFirstWithHostNet", '
            '"ClusterFirst", "Default", "None"',
        ],
    ),
    "no DNS at all": (
        {"dnsPolicy": "None"},
        ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    ),
    "DNS without servers": (
        {"dnsPolicy": "None", "dnsConfig": {"searches": ["a"]}},
        [
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is "
            "None"
        ],
    ),
    "DNS": (
        {
            "dnsConfig": {
                "nameservers": ["192.0.2.1", "192.0.2.2", "x", "192.0.2.4"],
                "searches": ["a_b.c.", ".", "ok"],
                "options": [{"value": "5"}],
            }
        },
        [
            'spec.dnsConfig.nameservers: Invalid value: ["192.0.2.1","192.0.2.2","x","192.0.2.4"]: must not have more '
            "than 3 nameservers",
            'spec.dnsConfig.nameservers[2]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or '
            "2001:db8::ffff)",
            "spec.dnsConfig.options[0]: Required value: must not be empty",
        ],
    ),
    "names": (
        {"hostname": "a.b", "subdomain": "c.d", "nodeName": "n1", "activeDeadlineSeconds": 0},
        [
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            'spec.hostname: Invalid value: "a.b": must not contain dots',
            'spec.subdomain: Invalid value: "c.d": must not contain dots',
        ],
    ),
    "tolerations": (
        {
            "tolerations": [
                {"operator": "Exists"},
                {"key": "a", "operator": "Exists", "value": "b"},
                {"value": "b"},
                {"key": "a", "operator": "Like"},
                {"key": "a", "operator": "Exists", "effect": "Evict"},
                {"key": "a", "operator": "Exists", "tolerationSeconds": 5},
            ]
        },
        [
            "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
            'spec.tolerations[2].operator: Invalid value: "": operator must be Exists when `key` is empty, which '
            'means "match all values and all keys"',
            'spec.tolerations[3].operator: Unsupported value: "Like": supported values: "Equal", "Exists"',
            'spec.tolerations[4].effect: Unsupported value: "Evict": supported values: "NoSchedule", '
            '"PreferNoSchedule", "NoExecute"',
            "spec.tolerations[5].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is "
            "set",
        ],
    ),
    "affinity": (
        {
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}},
                "podAntiAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 101, "podAffinityTerm": {"topologyKey": "a"}}
                    ]
                },
            }
        },
        [
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required "
            "value: must have at least one node selector term",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: "
            "101: must be in the range 1-100",
        ],
    ),
    "spreading": (
        {"topologySpreadConstraints": [{"maxSkew": 0, "whenUnsatisfiable": "Cry"}]},
        [
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
            'spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Cry": supported values: '
            '"DoNotSchedule", "ScheduleAnyway"',
        ],
    ),
    "host aliases": (
        {"hostAliases": [{"ip": "10.0.0.300", "hostnames": ["ok"]}]},
        [
            'spec.hostAliases[0].ip: Invalid value: "10.0.0.300": must be a valid IP address, (e.g. 10.9.8.7 or '
            "2001:db8::ffff)"
        ],
    ),
    "volumes": (
        {
            "volumes": [
                {"name": "a"},
                {"name": "a"},
                {"secret": {}},
                {"name": "b", "emptyDir": {}, "hostPath": {"path": "/x"}},
                {"name": "c", "hostPath": {"path": "/a/../b", "type": "Pipe"}},
                {"name": "d", "configMap": {"name": "c", "defaultMode": 512, "items": [{"key": "k", "path": "/k"}]}},
                {"name": "e", "persistentVolumeClaim": {}},
                {"name": "f", "projected": {"sources": [{}, {"secret": {}}]}},
                {"name": "g", "downwardAPI": {"items": [{"path": "x"}]}},
            ]
        },
        [
            'spec.volumes[1].name: Duplicate value: "a"',
            "spec.volumes[2].secret.secretName: Required value",
            "spec.volumes[2].name: Required value",
            "spec.volumes[3].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[4].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            'spec.volumes[4].hostPath.type: Unsupported value: "Pipe": supported values: "", "BlockDevice", '
            '"CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"',
            "spec.volumes[5].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), "
            "both inclusive",
            'spec.volumes[5].configMap.items[0].path: Invalid value: "/k": must be a relative path',
            "spec.volumes[6].persistentVolumeClaim.claimName: Required value",
            "spec.volumes[7].projected.sources[0]: Required value: must specify a volume type",
            "spec.volumes[7].projected.sources[1].secret.name: Required value",
            "spec.volumes[8].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required",
        ],
    ),
    "a token without an account": (
        {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
        [
            "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when "
            "serviceAccountName is not set"
        ],
    ),
    "gates": (
        {"schedulingGates": [{"name": "a"}, {"name": "a"}], "nodeName": "n1"},
        [
            'spec.schedulingGates[1]: Duplicate value: "a"',
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ],
    ),
    "ephemeral containers": (
        {"ephemeralContainers": [{"name": "d", "image": "x"}]},
        ["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    ),
    "user namespaces with the node's network": (
        {"hostUsers": False, "hostNetwork": True},
        ["spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false"],
    ),
    "system settings": (
        {"securityContext": {"sysctls": [{"name": "net.ipv4.ip_forward"}, {"name": "Bad"}]}, "hostNetwork": True},
        [
            'spec.securityContext.sysctls[0].name: Invalid value: "net.ipv4.ip_forward": may not be specified when '
            "'hostNetwork' is true",
            'spec.securityContext.sysctls[1].name: Invalid value: "Bad": must have at most 253 characters and match '
            "regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ],
    ),
}


@pytest.mark.parametrize(("spec", "expected"), [*CONTAINERS.values(), *SPECS.values()], ids=[*CONTAINERS, *SPECS])
def test_create(spec, expected) -> None:
    """A new pod is sound, or each fault is named."""
    assert found(pod(spec)) == expected


def test_names() -> None:
    """A pod may be named like a host."""
    obj = pod({})
    obj["metadata"] = {**META, "name": "web-1.example"}
    assert found(obj) == []


def test_binding() -> None:
    """A pod is bound to a node by name."""
    assert validation.validate_binding({"target": {"kind": "Node", "name": "n1"}}) == []
    assert [str(e) for e in validation.validate_binding({"target": {"kind": "Pod"}})] == [
        'target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"',
        "target.name: Required value",
    ]
