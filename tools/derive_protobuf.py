"""Derive `src/fairlead/api/data/protobuf.json`: the field numbers of Kubernetes' messages, for `fairlead.api.protobuf`.

Run it with Go and the Go module proxy at hand: `python tools/derive_protobuf.py`. Numbers and types are read from the
`generated.proto` files of k8s.io/api and k8s.io/apimachinery in the version of `structure.json`; what they do not say
(which fields are pointers, which structs are inlined) from the field tags of `types.go` beside them. Only messages
reachable from the kinds of `structure.json` are kept. Running it twice changes nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

DATA = Path(__file__).parent.parent / "src/fairlead/api/data"
OPTIONS = ("DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "Status")

SCALARS = {
    "k8s.io.apimachinery.pkg.api.resource.Quantity": "Quantity",
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": "IntOrString",
    "k8s.io.apimachinery.pkg.runtime.RawExtension": "any",
    "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1": "any",
    "k8s.io.apimachinery.pkg.apis.meta.v1.Time": "Time",
    "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime": "MicroTime",
}
WORDS = {"bool": "boolean"}
PREFIXES = (("k8s.io.api.", ""), ("k8s.io.apimachinery.pkg.apis.meta.", "meta."))

MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
PROTO_FIELD = re.compile(
    r"^\s+(optional|repeated|map<string, ([.\w]+)>)(?: ([.\w]+))? (\w+) = (\d+)(?: \[[^\]]*\])?;", re.MULTILINE
)
STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
GO_FIELD = re.compile(
    r'^\s+(?:\w+ +)?(\*?)[\w.\[\]*]+\s+`[^`]*json:"([^"]*)"[^`]*protobuf:"[^"]*?name=(\w+)', re.MULTILINE
)


def module(path: str, version: str) -> Path:
    """Where Go keeps that module."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "go.mod").write_text("module derive\n")
        command = ["go", "mod", "download", "-json", f"{path}@{version}"]
        output = subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout
    return Path(json.loads(output)["Dir"])


def short(name: str) -> str | None:
    """Our name of a message, or None for packages that hold no kinds."""
    return next((ours + name[len(theirs) :] for theirs, ours in PREFIXES if name.startswith(theirs)), None)


def read(proto: Path) -> dict[str, dict[str, tuple[int, str, str]]]:
    """Message (long name) → field → (number, type, flag) of one package; the flag is `*` pointer, `=` inlined,
    `!` written even if zero. Fields have their JSON names, which are those of the messages but for a few acronyms.
    """
    text = proto.read_text()
    found = re.search(r"^package ([\w.]+);", text, re.MULTILINE)
    if not found:
        raise SystemExit(f"{proto}: no package line")
    package = found.group(1)
    tags: dict[str, dict[str, tuple[str, str]]] = {}
    for source in proto.parent.glob("*.go"):
        for struct, body in STRUCT.findall(source.read_text()):
            for star, tag, name in GO_FIELD.findall(body):
                json_name, *options = tag.split(",")
                always = "" if star or "omitempty" in options or "omitzero" in options else "!"
                tags.setdefault(struct, {})[name] = (json_name or name, star + always if json_name else "=")
    messages = {}
    for message, body in MESSAGE.findall(text):
        fields = {}
        for label, value, single, name, number in PROTO_FIELD.findall(body):
            of = type_of(value or single, package)
            of = "{}" + of if value else "[]" + of if label == "repeated" else of
            json_name, flag = tags.get(message, {}).get(name, (name, ""))
            plain = of in ("string", "boolean", "int32", "int64", "double", "IntOrString", "Quantity")
            fields[json_name] = (int(number), of, flag if plain or flag != "!" else "")
        messages[f"{package}.{message}"] = fields
    return messages


def type_of(text: str, package: str) -> str:
    """A type in the grammar of `fairlead.api.schema`, with long names."""
    if text.startswith("."):
        return SCALARS.get(text[1:], "#" + text[1:])
    if text[0].isupper():
        name = f"{package}.{text}"
        return SCALARS.get(name, "#" + name)
    return WORDS.get(text, text)


def main() -> None:
    structure = json.loads((DATA / "structure.json").read_text())
    version = "v0." + structure["version"].split(".", 1)[1]
    messages: dict[str, dict[str, tuple[int, str, str]]] = {}
    for path in ("k8s.io/api", "k8s.io/apimachinery"):
        for proto in sorted(module(path, version).rglob("generated.proto")):
            messages |= read(proto)
    by_short = {name: long for long in messages if (name := short(long))}
    wanted = [n for n in structure["kinds"].values() if not n.startswith(("apiextensions.", "apiregistration."))]
    pending = [*wanted, *(f"meta.v1.{name}" for name in OPTIONS)]
    kept: dict[str, dict[str, list[str]]] = {}
    while pending:
        name = pending.pop()
        if name in kept:
            continue
        fields = messages[by_short[name]]
        known = structure["definitions"].get(name, {}).get("fields")
        kept[name] = {}
        for field, (number, of, flag) in sorted(fields.items(), key=lambda item: item[1][0]):
            start, mark, long = of.partition("#")
            if mark:
                inner = short(long)
                if inner is None:
                    raise SystemExit(f"{name}.{field}: {long} is in no known package")
                if list(messages[long]) == ["items"] and messages[long]["items"][1] == "[]string":
                    of = f"{start}~"  # a list of strings wrapped in a message, because protobuf has no map of lists
                else:
                    of = f"{start}#{inner}"
                    pending.append(inner)
            if known is not None and flag != "=" and field not in known:
                if not set(messages.get(long, {"": 0})) <= set(known):
                    print(f"{name}.{field} is not in structure.json: left out")
                    continue
                flag = "="  # an embedded struct whose tag does not name it
            kept[name][str(number)] = [field, flag + of]
    lines = [f' "{name}": {json.dumps(kept[name], separators=(",", ":"))}' for name in sorted(kept)]
    out = DATA / "protobuf.json"
    out.write_text(f'{{"version": "{structure["version"]}",\n"messages": {{\n' + ",\n".join(lines) + "\n}}\n")
    print(f"{out.name}: {len(kept)} messages of k8s.io/api {version}, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
