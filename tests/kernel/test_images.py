"""Containers of images: loaded or pulled, run by crun under the pod's shim, as their configuration and the pod say."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fairlead.images import skopeo
from fairlead.images.references import parse
from fairlead.images.store import ImageError, Store
from fairlead.kubelet.imagecollection import ImageCollector
from fairlead.kubelet.imagepull import Images
from fairlead.linux import podcgroups
from tests import imagemaker as make
from tests.kernel.kubelet_lab import Lab, object_of, phase_is, running, state_of

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def base() -> bytes:
    return make.busybox()


@pytest.fixture
def lab(lab: Lab) -> Lab:
    lab.options_extra["images_dir"] = lab.base / "images"
    lab.store = Store(lab.base / "images")
    return lab


def load(lab: Lab, name: str, layers: list[bytes], config: dict[str, Any] | None = None) -> Path:
    directory = make.layout(lab.base / f"layout-{len(list(lab.base.iterdir()))}", name, layers, config or {})
    skopeo.load(lab.store, directory)
    return directory


def script(text: str) -> dict[str, Any]:
    return {"image": "test/box:1", "command": ["sh", "-c", text]}


async def test_an_image_runs_as_it_says(lab: Lab, base: bytes) -> None:
    """Entry point, command, environment, directory and user are the image's; its files are the root."""
    config = {
        "Entrypoint": ["sh", "-c"],
        "Cmd": ["id -u; id -g; id -G; pwd; echo $COLOR; echo $HOME; cat /greeting; ls /bin | grep -c ."],
        "Env": ["PATH=/bin", "COLOR=blue"],
        "WorkingDir": "/home/web",
        "User": "web",
    }
    upper = make.layer(("greeting", b"hello\n", 0o644), ("bin/.wh.wget", b"", 0))
    load(lab, "test/app:1", [base, upper], config)
    await lab.start()
    lab.pod("app", container={"image": "test/app:1"}, spec={"restartPolicy": "Never"})
    pod = await lab.wait("app", phase_is("Succeeded"))
    expected = ["1000", "1001", "1001 50", "/home/web", "blue", "/home/web", "hello", str(len(make.APPLETS))]
    assert lab.log(pod).splitlines() == expected
    assert state_of(pod)["imageID"].startswith("docker.io/test/app@sha256:")
    await lab.event("app", "Pulled", 'Container image "test/app:1" already present on machine')
    await lab.stop()


async def test_what_the_pod_says_goes_first(lab: Lab, base: bytes) -> None:
    """Command, arguments, environment, user; a read-only root; volumes and the pod's own /etc files."""
    load(lab, "test/box:1", [base], {"Entrypoint": ["sh", "-c", "echo image"], "Env": ["A=image", "B=image"]})
    await lab.start()
    text = "id -u; id -g; echo $A $B; touch /x || echo read-only; touch /v/x && echo volume; grep -c one /etc/hosts"
    container = {
        **script(text),
        "env": [{"name": "A", "value": "pod"}],
        "securityContext": {"runAsUser": 1234, "runAsGroup": 2345, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    }
    spec = {"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}}]}
    lab.pod("one", container=container, spec=spec)
    pod = await lab.wait("one", phase_is("Succeeded"))
    said = [line for line in lab.log(pod).splitlines() if not line.startswith("touch:")]
    assert said == ["1234", "2345", "pod image", "read-only", "volume", "1"]
    await lab.stop()


async def test_rights(lab: Lab, base: bytes) -> None:
    """Capabilities, no_new_privs and the seccomp filter are what the pod asks for; nothing of the machine is seen."""
    load(lab, "test/box:1", [base])
    await lab.start()
    text = "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp; ls /"
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}
    security["seccompProfile"] = {"type": "RuntimeDefault"}
    container = {**script(text), "securityContext": security}
    lab.pod("safe", container=container, spec={"restartPolicy": "Never"})
    pod = await lab.wait("safe", lambda p: p.get("status", {}).get("phase") in ("Succeeded", "Failed"))
    text = lab.log(pod)
    assert "CapBnd:\t0000000000000001" in text
    assert "NoNewPrivs:\t1" in text
    assert "Seccomp:\t2" in text
    assert "mount: permission denied" in text
    assert set(text.splitlines()[-9:]) >= {"bin", "dev", "etc", "home", "proc", "sys", "tmp"}
    await lab.stop()


async def test_restarts_exec_probes_and_adoption(lab: Lab, base: bytes) -> None:
    """A container of an image is a container: exec'd into, probed, killed, restarted, adopted by the next kubelet."""
    load(lab, "test/box:1", [base])
    kubelet = await lab.start()
    probe = {"exec": {"command": ["cat", "/ready"]}, "periodSeconds": 1}
    text = "trap 'echo told; exit 3' TERM; touch /ready; while true; do sleep 0.05; done"
    lab.pod("box", container={**script(text), "readinessProbe": probe})
    pod = await lab.wait("box", lambda p: state_of(p).get("ready"))
    await lab.stop()
    kubelet = await lab.start()
    await kubelet.synced.wait()
    again = await lab.wait("box", running)
    assert state_of(again)["containerID"] == state_of(pod)["containerID"]
    assert state_of(again)["imageID"] == state_of(pod)["imageID"]
    worker = await lab.until(lambda: kubelet.find("default", "box"))
    await lab.until(lambda: worker.sandbox is not None and worker.containers["main"].running)
    await worker.sandbox.request("signal", name="main", attempt=0, signal=15)
    pod = await lab.wait("box", lambda p: state_of(p).get("restartCount") == 1 and state_of(p).get("ready"))
    assert state_of(pod)["lastState"]["terminated"]["exitCode"] == 3
    assert lab.log(pod) == "told\n"
    await lab.stop()


async def test_a_program_that_is_not_in_the_image(lab: Lab, base: bytes) -> None:
    """A start error in the runtime's own words, exit code 128."""
    load(lab, "test/box:1", [base])
    await lab.start()
    lab.pod("typo", container={"image": "test/box:1", "command": ["/no/such"]}, spec={"restartPolicy": "Never"})
    pod = await lab.wait("typo", phase_is("Failed"))
    ended = state_of(pod)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "/no/such" in ended["message"]
    await lab.stop()


@pytest.mark.parametrize(
    ("user", "security", "words"),
    [
        ("", {"runAsNonRoot": True}, "container has runAsNonRoot and image will run as root"),
        ("web", {"runAsNonRoot": True}, "image has non-numeric user (web), cannot verify user is non-root"),
        ("nobody", {}, "unable to find user nobody: no matching entries in passwd file"),
    ],
)
async def test_users_that_are_refused(lab: Lab, base: bytes, user: str, security: Any, words: str) -> None:
    """By the image's own files, in upstream's words."""
    load(lab, "test/box:1", [base], {"User": user})
    await lab.start()
    lab.pod("who", container={**script("id"), "securityContext": security})
    await lab.wait("who", lambda p: words in str(p.get("status")))
    await lab.stop()


async def test_limits(lab: Lab, base: bytes) -> None:
    """What the runtime starts is in the container's control group."""
    if "memory" not in podcgroups.hierarchies():
        pytest.skip("needs the memory controller of control groups")
    load(lab, "test/box:1", [base])
    await lab.start()
    resources = {"limits": {"memory": "16Mi"}}
    text = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"
    lab.pod("eater", container={**script(text), "resources": resources}, spec={"restartPolicy": "Never"})
    pod = await lab.wait("eater", phase_is("Failed"))
    assert state_of(pod)["state"]["terminated"]["reason"] == "OOMKilled"
    await lab.stop()


async def test_a_terminal(lab: Lab, base: bytes) -> None:
    """`tty: true` gives the container a terminal of its own."""
    load(lab, "test/box:1", [base])
    await lab.start()
    lab.pod("tty", container={**script("tty; stty size"), "tty": True}, spec={"restartPolicy": "Never"})
    pod = await lab.wait("tty", phase_is("Succeeded"))
    assert lab.log(pod).replace("\r", "").splitlines()[0].startswith("/dev/")
    await lab.stop()


@pytest.fixture
def registry(lab: Lab) -> Iterator[Callable[..., str]]:
    """Start Debian's docker-registry in the lab's namespace, optionally with a password; its address."""
    started: list[subprocess.Popen[bytes]] = []

    def start(password_file: Path | None = None) -> str:
        port = 5000 + len(started)
        auth = f"auth: {{htpasswd: {{realm: test, path: {password_file}}}}}\n" if password_file else ""
        config = lab.base / f"registry-{port}.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{auth}"
            f"storage: {{filesystem: {{rootdirectory: {lab.base / f'registry-{port}'}}}}}\n"
        )
        log = (lab.base / f"registry-{port}.log").open("wb")
        started.append(subprocess.Popen([make.registry_program(), "serve", str(config)], stdout=log, stderr=log))
        log.close()
        return f"127.0.0.1:{port}"

    yield start
    for process in started:
        process.kill()
        process.wait()


async def push(source: Path, inner: str, target: str, *flags: str) -> None:
    """Into the registry, once it listens."""
    for _ in range(200):
        process = await asyncio.create_subprocess_exec(
            *("skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *flags),
            *(f"oci:{source}:{inner}", f"docker://{target}"),
            stderr=subprocess.DEVNULL,
        )
        if await process.wait() == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the registry does not take the image")


async def test_pulled_from_a_registry(lab: Lab, base: bytes, registry: Callable[..., str]) -> None:
    """By tag and by digest; what is not there is ErrImagePull, then ImagePullBackOff; Never never pulls. Pulled for a
    pod it may go when the disk is full; not so once it was pulled by hand, though a pod pulls it again."""
    address = registry()
    await push(make.layout(lab.base / "box", "box", [base]), "box", f"{address}/team/box:1")
    await lab.start()
    once = {"restartPolicy": "Never"}
    lab.pod("box", container={"image": f"{address}/team/box:1", "command": ["echo", "pulled"]}, spec=once)
    pod = await lab.wait("box", phase_is("Succeeded"))
    assert lab.log(pod) == "pulled\n"
    await lab.event("box", "Pulled", f'Successfully pulled image "{address}/team/box:1" in ')
    digest = state_of(pod)["imageID"].partition("@")[2]
    always = {"image": f"{address}/team/box@{digest}", "command": ["echo", "same"], "imagePullPolicy": "Always"}
    lab.pod("digest", container=always, spec=once)
    assert lab.log(await lab.wait("digest", phase_is("Succeeded"))) == "same\n"
    by_tag = parse(f"{address}/team/box:1")
    assert [image.renewable for image in lab.store.list()] == [True, True]
    assert not skopeo.pull(lab.store, by_tag).renewable
    lab.pod("again", container={**always, "image": f"{address}/team/box:1"}, spec=once)
    await lab.wait("again", phase_is("Succeeded"))
    found = lab.store.find(by_tag)
    assert found is not None
    assert not found.renewable
    lab.pod("missing", container={"image": f"{address}/team/box:9", "command": ["true"]})
    pod = await lab.wait("missing", lambda p: "ErrImagePull" in str(state_of(p).get("state")))
    assert "manifest unknown" in state_of(pod)["state"]["waiting"]["message"]
    await lab.wait("missing", lambda p: "ImagePullBackOff" in str(state_of(p).get("state")))
    lab.pod("never", container={"image": f"{address}/x:1", "command": ["true"], "imagePullPolicy": "Never"})
    await lab.wait("never", lambda p: "ErrImageNeverPull" in str(state_of(p).get("state")))
    lab.pod("odd", container={"image": "UPPER", "command": ["true"]})
    await lab.wait("odd", lambda p: "InvalidImageName" in str(state_of(p).get("state")))
    await lab.stop()


def test_archives_and_layouts(tmp_path: Path, base: bytes) -> None:
    """`docker save` archives and OCI layouts are loaded under the names in them; removing one keeps shared layers."""
    store = Store(tmp_path / "images")
    source = make.layout(tmp_path / "a", "box:1", [base])
    archive = make.docker_archive(source, "box:1", tmp_path / "box.tar")
    assert [image.reference for image in skopeo.load(store, archive)] == ["docker.io/library/box:1"]
    more = make.layer(("more", b"x", 0o600))
    skopeo.load(store, make.layout(tmp_path / "b", "quay.io/team/more:2", [base, more]))
    assert [image.reference for image in store.list()] == ["docker.io/library/box:1", "quay.io/team/more:2"]
    assert store.remove(parse("quay.io/team/more:2"))
    assert not store.remove(parse("quay.io/team/more:2"))
    image = store.find(parse("box:1"))
    assert image is not None
    assert image.read("etc/passwd") == make.PASSWD
    assert len(list((tmp_path / "images" / "layers").iterdir())) == 1
    with pytest.raises(ImageError, match="neither an OCI layout nor an archive"):
        skopeo.load(store, make.BUSYBOX)


async def test_unused_images_make_room(tmp_path: Path, base: bytes) -> None:
    """On a full disk what was pulled for pods goes, the longest unused first, until there is room; what a pod has, what
    was used a moment ago and what was loaded stays; if that is not enough, it is said."""
    store = Store(tmp_path / "images")
    for number, name in enumerate(("loaded", "idle", "older", "used", "recent")):
        layers = [base, make.layer((name, name.encode(), 0o644))]
        [image] = skopeo.load(store, make.layout(tmp_path / name, f"test/{name}:1", layers))
        if name != "loaded":
            with store.locked():
                store.add(parse(image.reference), image.digest, renewable=True)
        if name != "recent":
            old = time.time() - 3600 - number
            [file] = (store.root / "names").glob(f"*{name}*")
            os.utime(file, (old, old))
    said: list[str] = []
    recorder: Any = SimpleNamespace(event=lambda obj, *what: said.append(f"{obj['kind']} {' '.join(what)}"))
    room = {5: 16, 4: 18, 3: 25}

    def there() -> list[str]:
        return [image.reference.rpartition("/")[2] for image in store.list()]

    def usage(_: Path) -> tuple[int, int, int]:
        return 100, 0, room[len(there())]

    pods = [{"spec": {"containers": [{"image": "test/used:1"}], "initContainers": [{"image": "fairlead/host"}]}}]
    collector = ImageCollector(Images(store.root), lambda: pods, recorder, "n1", usage)
    await collector.look(store)
    assert len(there()) == 5, "there is room"
    room[5] = 15
    room[4] = 20
    await collector.look(store)
    assert there() == ["idle:1", "loaded:1", "recent:1", "used:1"]
    assert len(list((store.root / "layers").iterdir())) == 5
    room[4] = 12
    room[3] = 17
    await collector.look(store)
    assert there() == ["loaded:1", "recent:1", "used:1"]
    assert said == [
        "Node Warning FreeDiskSpaceFailed Failed to garbage collect required amount of images. Attempted to free 8 "
        "bytes, but only found 5 bytes eligible to free."
    ]


def test_a_layer_can_not_write_outside_of_itself(tmp_path: Path, base: bytes) -> None:
    """Links and dots in an archive lead nowhere else."""
    outside = tmp_path / "outside"
    outside.mkdir()
    evil = make.layer(
        ("way", str(outside), 0o777),
        ("way/one", b"x", 0o644),
        ("../../../../../../" + str(outside)[1:] + "/two", b"x", 0o644),
        (str(outside / "three"), b"x", 0o644),
    )
    store = Store(tmp_path / "images")
    try:
        skopeo.load(store, make.layout(tmp_path / "evil", "evil:1", [evil]))
    except ImageError as error:
        assert "can't be unpacked" in str(error)
    assert list(outside.iterdir()) == []
    link = make.layer(("etc", "/etc", 0o777))
    [image] = skopeo.load(store, make.layout(tmp_path / "link", "link:1", [link]))
    assert image.read("etc/passwd") == "", "the machine's own is not the image's"


# bcrypt of "secret"
PASSWORDS = "user:$2b$05$K81AEGpFx3wlFxTX8Vculuo70jSHHIW.1mOAaKaFKSWBXRi8SxZKG\n"


async def test_a_private_registry(lab: Lab, base: bytes, registry: Callable[..., str]) -> None:
    """Without credentials the pull is refused; with an imagePullSecret it works; a secret that is not there is said."""
    passwords = lab.base / "passwords"
    passwords.write_text(PASSWORDS)
    address = registry(passwords)
    source = make.layout(lab.base / "box", "box", [base])
    await push(source, "box", f"{address}/box:1", "--dest-creds", "user:secret")
    await lab.start()
    container = {"image": f"{address}/box:1", "command": ["echo", "mine"]}
    lab.pod("stranger", container=container)
    pod = await lab.wait("stranger", lambda p: "ErrImagePull" in str(state_of(p).get("state")))
    assert "authentication required" in state_of(pod)["state"]["waiting"]["message"]
    auths = {"auths": {address: {"username": "user", "password": "secret"}}}
    encoded = base64.b64encode(json.dumps(auths).encode()).decode()
    kind = "kubernetes.io/dockerconfigjson"
    lab.api.add(object_of("Secret", "key", type=kind, data={".dockerconfigjson": encoded}))
    secrets = [{"name": "lost"}, {"name": "key"}]
    lab.pod("friend", container=container, spec={"restartPolicy": "Never", "imagePullSecrets": secrets})
    assert lab.log(await lab.wait("friend", phase_is("Succeeded"))) == "mine\n"
    await lab.event("friend", "FailedToRetrieveImagePullSecret", "(lost)")
    await lab.stop()
