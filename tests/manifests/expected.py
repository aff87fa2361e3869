"""What the documentation says of its examples that is not plain from their objects, by the file's path."""

from __future__ import annotations

# what the same page applies before
FIRST: dict[str, tuple[str, ...]] = {
    "application/hpa/php-apache.yaml": ("application/php-apache.yaml",),
    "application/mysql/mysql-statefulset.yaml": (
        "application/mysql/mysql-configmap.yaml",
        "application/mysql/mysql-services.yaml",
    ),
    "application/mysql/mysql-deployment.yaml": ("application/mysql/mysql-pv.yaml",),
    "pods/storage/pv-claim.yaml": ("pods/storage/pv-volume.yaml",),
    "pods/storage/pv-pod.yaml": ("pods/storage/pv-volume.yaml", "pods/storage/pv-claim.yaml"),
}

# a state that is not ready or complete, and is what the page shows: a part of what is seen
ENDS: dict[str, str] = {
    "controllers/job-pod-failure-policy-config-issue.yaml": "active",
    "controllers/job-pod-failure-policy-example.yaml": "failed: PodFailurePolicy",
    "controllers/job-pod-failure-policy-failjob.yaml": "failed: PodFailurePolicy",
    "controllers/job-backoff-limit-per-index-example.yaml": "failed: FailedIndexes",
    "application/cassandra/cassandra-statefulset.yaml": "0 of 3 ready",  # its StorageClass is minikube's
    "application/job/rabbitmq/job.yaml": "2 active",  # its image is a place to fill in
    "pods/init-containers.yaml": "Pending",  # it fetches a page from the internet
    "pods/pod-nginx-specific-node.yaml": "Pending",  # the node foo-node
    "pods/pod-with-pod-affinity.yaml": "didn't match pod affinity rules",
    "pods/security/seccomp/ga/violation-pod.yaml": "not ready",  # its profile allows nothing
    "pods/user-namespaces-stateless.yaml": "CreateContainerConfigError",
    "service/networking/minimal-ingress.yaml": "no address",  # of a class that nobody serves
    "pods/pod-with-scheduling-gates.yaml": "pending",
    "pods/private-reg-pod.yaml": "InvalidImageName",
    "pods/resource/cpu-request-limit-2.yaml": "Insufficient cpu",
    "pods/resource/memory-request-limit-2.yaml": "OOMKilled",
    "pods/resource/memory-request-limit-3.yaml": "Insufficient memory",
}

# a container's own words, which the page shows
SAYS: dict[str, tuple[str, ...]] = {
    "application/job/cronjob.yaml": ("Hello from the Kubernetes cluster",),
    "application/job/indexed-job.yaml": ("oof", "rab", "zab", "xuq", "zyx"),
    "application/job/indexed-job-vol.yaml": ("0", "1", "2", "3", "4"),
    "application/deployment-sidecar.yaml": ("logging",),
    "controllers/job.yaml": ("3.14159265358979323846264338327950288419716939937510",),
    "controllers/job-pod-failure-policy-example.yaml": ("Hello world!",),
    "pods/commands.yaml": ("command-demo", "tcp://10.96.0.1:443"),
    "pods/inject/dapi-envars-container.yaml": ("1", "33554432", "67108864"),
    "pods/inject/dapi-envars-pod.yaml": ("dapi-envars-fieldref", "default"),
    "pods/inject/dapi-volume.yaml": ('cluster="test-cluster1"', 'rack="rack-22"', 'builder="john-doe"'),
    "pods/inject/dapi-volume-resources.yaml": ("125", "250", "32", "64"),
    "pods/inject/dependent-envars.yaml": (
        "UNCHANGED_REFERENCE=$(PROTOCOL)://172.17.0.1:80",
        "SERVICE_ADDRESS=https://172.17.0.1:80",
        "ESCAPED_REFERENCE=$(PROTOCOL)://172.17.0.1:80",
    ),
    "pods/pod-configmap-env-var-valueFrom.yaml": ("special-config-has-SPECIAL_LEVEL special-config-has-SPECIAL_TYPE",),
    "pods/pod-configmap-envFrom.yaml": ("SPECIAL_CONFIG=special-config-has-SPECIAL_CONFIG",),
    "pods/pod-configmap-volume.yaml": ("SPECIAL_CONFIG",),
    "pods/pod-configmap-volume-specific-key.yaml": ("special-config-has-SPECIAL_LEVEL",),
    "pods/pod-multiple-configmap-env-variable.yaml": (
        "SPECIAL_LEVEL_KEY=special-config-has-special.how",
        "LOG_LEVEL=env-config-has-log_level",
    ),
    "pods/pod-single-configmap-env-variable.yaml": ("SPECIAL_LEVEL_KEY=special-config-has-special.how",),
    "service/networking/hostaliases-pod.yaml": ("foo.local", "10.1.2.3", "bar.remote"),
    "debug/counter-pod.yaml": ("0: ", "1: "),
}

# what a command in the first container prints: (command, a part of the answer)
RUNS: dict[str, tuple[str, str]] = {
    "pods/inject/envars.yaml": ("printenv DEMO_GREETING", "Hello from the environment"),
    "pods/lifecycle-events.yaml": ("cat /usr/share/message", "Hello from the postStart handler"),
    "pods/security/security-context.yaml": ("id", "uid=1000(web) gid=3000 groups=50(staff),2000"),
    "pods/security/security-context-2.yaml": ("id -u", "2000"),
    "pods/security/security-context-4.yaml": ("grep CapEff /proc/1/status", "00000000a20435fb"),
    "pods/storage/projected-service-account-token.yaml": ("cat /service-account/token", "ey"),
    "pods/storage/projected-secret-downwardapi-configmap.yaml": ("ls /projected-volume", "cpu_limit"),
    "pods/two-container-pod.yaml": ("cat /usr/share/nginx/html/index.html", "Hello from the debian container"),
    "service/networking/custom-dns.yaml": ("cat /etc/resolv.conf", "nameserver 192.0.2.1"),
    "pods/share-process-namespace.yaml": ("ps", "sleep 3600"),
}

# restarts by its liveness probe, as the page shows
RESTARTS = ("pods/probe/exec-liveness.yaml", "pods/probe/http-liveness.yaml")

# what the API refuses, as upstream's does
REFUSED = (
    "application/job/job-tmpl.yaml",
    "controllers/hpa-rs.yaml",
    "service/networking/dual-stack-ipv6-svc.yaml",
)
