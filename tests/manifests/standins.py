"""Images that stand in for those the documentation's manifests name, which are in registries.

Made of what this machine has: a busybox, bash, Python and etcd, and short scripts that listen where the real
program listens, under its name. What a manifest does with Kubernetes is seen with them; what the program does is not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests import imagemaker as make
from tests.contract.etcd_server import ETCD

MORE_APPLETS = (
    *("[", "test", "true", "false", "sed", "printf", "rev", "tail", "head", "date", "killall", "kill", "wc", "cut"),
    *("nslookup", "chmod", "rm", "cp", "ln", "seq", "sync", "uname", "mktemp", "find", "bc", "expr", "ping", "netstat"),
)
SITE = b"<title>Welcome</title>\n"


def serving(*ports: int, before: str = "") -> str:
    """A script that answers on these ports until it is told to go."""
    servers = "".join(f"httpd -f -p {port} -h $site &\n" for port in ports)
    return (
        "#!/bin/sh\ncase \"$*\" in *'-s quit'*|*'-s stop'*) kill -TERM 1; exit;; esac\n"
        f"site=/usr/share/nginx/html; [ -d $site ] || mkdir -p $site\n{before}{servers}"
        "trap 'kill $(jobs -p) 2>/dev/null; exit 0' TERM INT QUIT\nwait\n"
    )


# healthy for ten seconds, then no longer, as the documentation's example is
LIVENESS = (
    "#!/bin/sh\nmkdir -p /www; echo ok >/www/healthz\n(sleep 10; rm /www/healthz) &\nexec httpd -f -p 8080 -h /www\n"
)
# the flags that the examples use: memory is taken by one block of dd, CPU by a loop for each --cpus
STRESS = """#!/bin/sh
bytes=; cpus=
while [ $# -gt 0 ]; do case "$1" in
  --vm-bytes|-mem-total) bytes=$2; shift;; -cpus|--cpu) cpus=$2; shift;; esac; shift; done
[ -z "$bytes" ] || while true; do dd if=/dev/zero of=/dev/null bs=$bytes count=1 || exit 1; sleep 1; done
while [ "${cpus:-0}" -gt 0 ]; do (while true; do :; done) & cpus=$((cpus-1)); done
wait
"""
IDLE = "#!/bin/sh\ntrap 'exit 0' TERM INT\nwhile true; do sleep 1 & wait $!; done\n"
CASSANDRA = serving(7000, 7001, 7199, 9042)
SCRIPTS = {
    "nginx": serving(80),
    "httpd-80-443": serving(80, 443),
    "httpd-8080": serving(8080),
    "httpd-5678": serving(5678),
    "httpd-9376": serving(9376),
    "redis-server": serving(6379),
    "mysqld": serving(3306),
    "mongod": serving(27017),
    "cassandra": CASSANDRA,
    "start-zookeeper": serving(2181, 2888, 3888),
    "zookeeper-ready": "#!/bin/sh\nexec wget -qO /dev/null http://127.0.0.1:2181/\n",
    "liveness": LIVENESS,
    "stress": STRESS,
    "idle": IDLE,
    "printenv": "#!/bin/sh\nfor name; do tr '\\000' '\\n' </proc/$$/environ | sed -n \"s/^$name=//p\"; done\n",
    "mysql": "#!/bin/sh\nexit 0\n",
    "mysqladmin": "#!/bin/sh\nexit 0\n",
    # what the example of replicated MySQL runs beside it
    "ncat": '#!/bin/sh\n[ "$1" = --recv-only ] && { shift; exec nc "$@" </dev/null; }\nexec httpd -f -p 3307\n',
    "xbstream": "#!/bin/sh\nexec cat >/dev/null\n",
    "xtrabackup": "#!/bin/sh\nexit 0\n",
    # of the examples only one calls perl: it wants many digits of pi, over which Debian's own stumbles
    "perl": "#!/bin/sh\necho 'scale=60; 4*a(1)' | bc -l\n",
    "work": "#!/bin/sh\necho worked\n",
}
_FAMILIES = (  # what the image's path has in it → the script that it starts
    (r"windows|iis|nanoserver|non-existing|kindest|[<>]|example-image", ""),
    (r"nginxhttps", "httpd-80-443"),
    (r"nginx|wordpress|gb-frontend|hello-frontend|hello-go-gke|hpa-example", "nginx"),
    (r"node-hello|hello-app|goproxy", "httpd-8080"),
    (r"http-echo", "httpd-5678"),
    (r"serve_hostname", "httpd-9376"),
    (r"redis", "redis-server"),
    (r"mysql", "mysqld"),
    (r"mongo", "mongod"),
    (r"cassandra", "cassandra"),
    (r"zookeeper", "start-zookeeper"),
    (r"liveness", "liveness"),
    (r"stress", "stress"),
    (r"job-wq", "work"),
    (r"busybox|alpine|debian|bash|dnsutils|python|perl", "sh"),
    (r"etcd", "etcd"),
)


def family(image: str) -> str:
    """The script that the stand-in for that image starts; nothing, if there is none for it."""
    return next((script for pattern, script in _FAMILIES if re.search(pattern, image)), "idle")


def interpreters() -> list[Path]:
    """Python as Debian has it, and as much of its library as the examples use."""
    found = [Path("/usr/bin/python3")]
    for library in sorted(Path("/usr/lib").glob("python3.*")):
        found += [*library.glob("*.py"), library / "encodings", library / "collections", library / "re"]
    return [path for path in found if path.exists()]


def layouts(directory: Path, images: Iterable[str]) -> list[Path]:
    """One OCI layout for each kind of stand-in among the images, with all the names it stands for."""
    names: dict[str, list[str]] = defaultdict(list)
    for image in sorted(set(images)):
        if script := family(image):
            names[script].append(image)
    scripts = make.layer(
        *((f"bin/{name}", "busybox", 0o777) for name in MORE_APPLETS),
        *((f"usr/local/bin/{name}", text.encode(), 0o755) for name, text in SCRIPTS.items()),
        ("usr/sbin/nginx", "/usr/local/bin/nginx", 0o777),
        ("usr/share/nginx/html/index.html", SITE, 0o644),
        ("ready-probe.sh", b"#!/bin/sh\nexec wget -qO /dev/null http://127.0.0.1:9042/\n", 0o755),
        ("event-exporter", IDLE.encode(), 0o755),
        ("var/lib", None, 0o755),
    )
    bash, system = make.programs(Path("/bin/bash")), make.programs(*interpreters())
    made = []
    for script, known in names.items():
        if script == "etcd" and ETCD is None:
            continue
        # a shell's image starts what it is told; the others start their program, whatever the arguments
        config = {
            "Cmd" if script == "sh" else "Entrypoint": [script],
            "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin"],
        }
        layers = [make.busybox(), scripts, bash]
        if script == "sh":
            layers.append(system)
        elif script == "etcd":
            etcd = Path(ETCD or "")
            layers += [make.programs(etcd), make.layer(("usr/local/bin/etcd", etcd.read_bytes(), 0o755))]
        made.append(make.layout(directory / script, known[0], layers, config, *known[1:]))
    return made
