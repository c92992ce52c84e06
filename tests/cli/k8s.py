"""Every document of k8s-jobs/*.yaml against the published Kubernetes API schema, strictly (a field
that the API does not know is an error, as is a key given twice), and against what the API server or
the kubelet would find out only later. Each check is first shown to catch a broken manifest.

usage: k8s.py      shared data at ../shared from the project's root, or $TIDEMARK_SHARED
"""

import copy
import json
import os
import pathlib
import re
import sys

try:
    import jsonschema
    import yaml
except ImportError as e:
    print(f"skipped: needs python3-jsonschema and python3-yaml ({e})")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("TIDEMARK_SHARED", ROOT.parent / "shared"))
SWAGGER = SHARED / "schemas" / "kubernetes-swagger.json"
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
         "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


# --- reading --------------------------------------------------------------------------------------

class StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, as kubectl's strict mode does."""


def strict_mapping(loader, node):
    mapping = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} given twice", key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, strict_mapping)


def load(text):
    return [d for d in yaml.load_all(text, Loader=StrictLoader) if d is not None]


# --- schema ---------------------------------------------------------------------------------------

def strict_definitions(swagger):
    """Swagger 2 definitions as a JSON Schema that knows no other fields than the API's."""
    definitions = swagger["definitions"]
    for definition in definitions.values():
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
        if definition.get("format") == "int-or-string":
            definition["type"] = ["integer", "string"]
    return definitions


def definition_names(definitions):
    """(apiVersion, kind) -> name of the definition."""
    names = {}
    for name, definition in definitions.items():
        for gvk in definition.get("x-kubernetes-group-version-kind", []):
            version = f"{gvk['group']}/{gvk['version']}" if gvk["group"] else gvk["version"]
            names.setdefault((version, gvk["kind"]), name)
    return names


def schema_findings(document, definitions, names):
    kind = (document.get("apiVersion"), document.get("kind"))
    if kind not in names:
        yield f"apiVersion {kind[0]!r} has no kind {kind[1]!r}"
        return
    schema = {"$ref": f"#/definitions/{names[kind]}", "definitions": definitions}
    for error in jsonschema.Draft4Validator(schema).iter_errors(document):
        where = ".".join(str(step) for step in error.absolute_path) or "top level"
        yield f"{where}: {error.message[:200]}"


# --- meaning --------------------------------------------------------------------------------------

def quantity(text):
    found = re.fullmatch(r"([0-9.]+)([kMGTm]|[KMGT]i)?", str(text))
    return float(found[1]) * UNITS[found[2] or ""] if found else float("nan")


def project_version():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.search(r"project\(tidemark VERSION ([0-9.]+)", text)[1]


def pod_of(document):
    return document.get("spec", {}).get("template", {}).get("spec")


def name_findings(document):
    name = document.get("metadata", {}).get("name", "")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        yield f"metadata.name {name!r} is no DNS label of at most 63 characters"


def volume_findings(pod, claims):
    volumes = pod.get("volumes", [])
    names = [v["name"] for v in volumes]
    for name in {n for n in names if names.count(n) > 1}:
        yield f"volume {name} is there twice"
    for v in volumes:
        claim = v.get("persistentVolumeClaim", {}).get("claimName")
        if claim and claim not in claims:
            yield f"volume {v['name']}: no PersistentVolumeClaim {claim} in the file"
    memory = sum(quantity(v["emptyDir"].get("sizeLimit", "inf")) for v in volumes
                 if v.get("emptyDir", {}).get("medium") == "Memory")
    limits = sum(quantity(c.get("resources", {}).get("limits", {}).get("memory", "0"))
                 for c in pod["containers"])
    if memory and not memory < limits:
        yield f"memory volumes of {memory:g} bytes count towards the memory limits, {limits:g} bytes"


def inside(path, mounts):
    return any(path == m or path.startswith(m.rstrip("/") + "/") for m in mounts)


def container_findings(container, pod):
    where = f"container {container['name']}"
    resources = container.get("resources", {})
    if not resources.get("limits") or resources.get("requests") != resources.get("limits"):
        yield f"{where}: requests and limits differ: not Guaranteed, measures its neighbours"
    if not str(resources.get("limits", {}).get("cpu", "")).isdigit():
        yield f"{where}: whole CPUs only, else no cores of its own"
    mounts = container.get("volumeMounts", [])
    volumes = {v["name"] for v in pod.get("volumes", [])}
    for m in mounts:
        if m["name"] not in volumes:
            yield f"{where}: volumeMount {m['name']}: no such volume"
    tag = container["image"].rpartition(":")[2]
    if container["image"].split("/")[-1].startswith("tidemark") and tag != project_version():
        yield f"{where}: image {container['image']}, but this is version {project_version()}"
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: allowPrivilegeEscalation must be false"
    if not security.get("readOnlyRootFilesystem"):
        yield f"{where}: readOnlyRootFilesystem must be true"
    yield from writes_findings(where, container, [m["mountPath"] for m in mounts])


def writes_findings(where, container, mounts):
    """The root is read-only: what the command writes must lie on a volume."""
    words = container.get("command", []) + container.get("args", [])
    written = [words[i + 1] for i, w in enumerate(words[:-1]) if w in ("-o", "--output")]
    written += [e["value"] for e in container.get("env", []) if e["name"] == "TMPDIR"]
    for path in written:
        if not inside(path, mounts):
            yield f"{where}: {path} is written but lies on no volume"
    if words[:2] == ["tidemark", "run"] and not any(w in ("-o", "--output") for w in words):
        yield f"{where}: results without -o go to the read-only root"


def pod_findings(pod, claims):
    if not pod.get("securityContext", {}).get("runAsNonRoot"):
        yield "the pod must say runAsNonRoot"
    if pod.get("securityContext", {}).get("runAsUser", 0) == 0:
        yield "runAsNonRoot needs a runAsUser other than 0"
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        yield "restartPolicy of a Job is Never or OnFailure"
    yield from volume_findings(pod, claims)
    for container in pod["containers"] + pod.get("initContainers", []):
        yield from container_findings(container, pod)


# --- all ------------------------------------------------------------------------------------------

class Validator:
    def __init__(self):
        with open(SWAGGER, encoding="utf-8") as f:
            self.definitions = strict_definitions(json.load(f))
        self.names = definition_names(self.definitions)

    def findings(self, documents):
        claims = {d["metadata"]["name"] for d in documents
                  if d.get("kind") == "PersistentVolumeClaim"}
        for document in documents:
            what = f"{document.get('kind')} {document.get('metadata', {}).get('name')}"
            found = list(schema_findings(document, self.definitions, self.names))
            if not found:  # meaning is asked of what has the right shape
                found += name_findings(document)
                pod = pod_of(document)
                found += pod_findings(pod, claims) if pod else []
            yield from (f"{what}: {finding}" for finding in found)


def misspell(container):
    container["volumeMount"] = container.pop("volumeMounts")


def self_test(validator, good):
    """Breaks a good Job in one place at a time: each must be found, in these words."""
    breaks = {
        "'volumeMount' was unexpected": lambda j, c: misspell(c),
        "'restartPolcy' was unexpected": lambda j, c: pod_of(j).update(restartPolcy="Never"),
        "is not of type 'integer'": lambda j, c: j["spec"].update(completions="one"),
        "has no kind": lambda j, c: j.update(apiVersion="batch/v2"),
        "no DNS label": lambda j, c: j["metadata"].update(name="Tidemark_1"),
        "requests and limits differ": lambda j, c: c["resources"]["requests"].update(cpu="3"),
        "whole CPUs": lambda j, c: [c["resources"][r].update(cpu="1500m")
                                    for r in ("requests", "limits")],
        "no such volume": lambda j, c: c["volumeMounts"][0].update(name="elsewhere"),
        "no PersistentVolumeClaim": lambda j, c: pod_of(j)["volumes"][0].update(
            persistentVolumeClaim={"claimName": "other"}),
        "count towards the memory limits": lambda j, c: [
            v["emptyDir"].update(sizeLimit="900Gi") for v in pod_of(j)["volumes"]
            if v.get("emptyDir", {}).get("medium")],
        "but this is version": lambda j, c: c.update(image="tidemark:9.9.9"),
        "must say runAsNonRoot": lambda j, c: pod_of(j)["securityContext"].update(
            runAsNonRoot=False),
        "lies on no volume": lambda j, c: c.update(args=["-o", "/elsewhere/x.h5"]),
    }
    for words, change in breaks.items():
        documents = copy.deepcopy(good)
        job = next(d for d in documents if d["kind"] == "Job")
        change(job, pod_of(job)["containers"][0])
        found = list(validator.findings(documents))
        if not any(words in finding for finding in found):
            yield f"self-test: a manifest broken in one place is not caught ({words}): {found}"
    try:
        load("a: 1\nb: {c: 1, c: 2}\n")
        yield "self-test: a key given twice is not caught"
    except yaml.constructor.ConstructorError:
        pass


def main():
    if not SWAGGER.is_file():
        print(f"skipped: no {SWAGGER} (shared data, or TIDEMARK_SHARED)")
        sys.exit(77)
    validator, findings, count = Validator(), [], 0
    for path in sorted((ROOT / "k8s-jobs").glob("*.yaml")):
        try:
            documents = load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as e:
            findings.append(f"{path.name}: {e}")
            continue
        count += len(documents)
        findings += [f"{path.name}: {finding}" for finding in validator.findings(documents)]
    if not findings:
        findings += self_test(validator, load((ROOT / "k8s-jobs/job.yaml").read_text()))
    for finding in findings:
        print(finding)
    print(f"{count} documents: {len(findings)} findings")
    sys.exit(1 if findings or not count else 0)


main()
