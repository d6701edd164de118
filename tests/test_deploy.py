"""The files for KubeRay, crontab and Grafana: fields and types that the CRDs have, commands and metrics that exist."""

import json
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segjobs.config import LabelConfig, NightlyConfig, load_config
from segjobs.jobs.engine.metrics import METRICS

DEPLOY = Path(__file__).resolve().parents[1] / "conf" / "deploy"

Int32 = Annotated[int, Field(ge=0, lt=2**31)]
Quantity = Annotated[str | int, Field(union_mode="left_to_right")]


class Schema(BaseModel):
    """Of ray.io/v1 (KubeRay 1.5) and core/v1, as far as these files could use them: other fields, types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Name(Schema):
    name: str


class Source(Schema):
    secretRef: Name | None = None
    configMapRef: Name | None = None


class Variable(Schema):
    name: str
    value: str


class Amounts(Schema):
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Container(Schema):
    name: str
    image: str
    env: list[Variable] = []
    envFrom: list[Source] = []
    resources: Amounts


class Pod(Schema):
    containers: Annotated[list[Container], Field(min_length=1)]
    terminationGracePeriodSeconds: Int32
    nodeSelector: dict[str, str] = {}
    serviceAccountName: str | None = None


class PodTemplate(Schema):
    spec: Pod


class Head(Schema):
    rayStartParams: dict[str, str]
    template: PodTemplate
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None


class Workers(Schema):
    groupName: str
    replicas: Int32
    minReplicas: Int32
    maxReplicas: Int32
    rayStartParams: dict[str, str]
    template: PodTemplate
    idleTimeoutSeconds: Int32 | None = None
    numOfHosts: Int32 | None = None


class Auth(Schema):
    mode: Literal["disabled", "token"]


class Cluster(Schema):
    rayVersion: str
    authOptions: Auth
    headGroupSpec: Head
    workerGroupSpecs: list[Workers]
    enableInTreeAutoscaling: bool | None = None


class JobSpec(Schema):
    entrypoint: str
    rayClusterSpec: Cluster
    activeDeadlineSeconds: Annotated[int, Field(ge=1, lt=2**31)]
    backoffLimit: Int32
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: Int32
    runtimeEnvYAML: str | None = None
    submissionMode: Literal["K8sJobMode", "HTTPMode"] | None = None


class CronSpec(Schema):
    schedule: str
    jobTemplate: JobSpec
    suspend: bool | None = None


class Resource(Schema):
    apiVersion: Literal["ray.io/v1"]
    metadata: Name


class RayJob(Resource):
    kind: Literal["RayJob"]
    spec: JobSpec


class RayCronJob(Resource):
    kind: Literal["RayCronJob"]
    spec: CronSpec


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def check_job(spec: JobSpec, verb: str, kind: type[LabelConfig | NightlyConfig]) -> None:
    words = shlex.split(spec.entrypoint)
    assert words[:2] == ["segjobs", verb]
    config = load_config(kind, None, words[2:])
    cluster = spec.rayClusterSpec
    assert cluster.authOptions.mode == "token"
    for group in cluster.workerGroupSpecs:
        assert group.minReplicas <= group.replicas <= group.maxReplicas
    pods = [group.template.spec for group in (cluster.headGroupSpec, *cluster.workerGroupSpecs)]
    assert all(pod.terminationGracePeriodSeconds > config.compute.grace_s for pod in pods)
    (stop,) = pods[0].containers[0].env
    assert stop.name == "RAY_JOB_STOP_WAIT_TIME_S"
    assert int(stop.value) > config.compute.grace_s


def test_the_job() -> None:
    check_job(RayJob.model_validate(load("rayjob.yaml")).spec, "label", LabelConfig)


def test_the_nightly_job_is_on_the_same_cluster() -> None:
    cron = RayCronJob.model_validate(load("raycronjob.yaml")).spec
    assert len(cron.schedule.split()) == 5
    check_job(cron.jobTemplate, "nightly", NightlyConfig)
    assert cron.jobTemplate.activeDeadlineSeconds < 24 * 3600, "nights do not overlap"
    own = {"activeDeadlineSeconds", "entrypoint"}
    job = RayJob.model_validate(load("rayjob.yaml")).spec
    assert cron.jobTemplate.model_dump(exclude=own) == job.model_dump(exclude=own)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("backoffLimit: 3", 'backoffLimit: "3"'),
        ('num-cpus: "0"', "num-cpus: 0"),
        ("mode: token", "mode: tokens"),
        ("groupName: gpu", "name: gpu"),
        ("envFrom: &credentials", "envfrom: &credentials"),
    ],
)
def test_what_the_schema_refuses(old: str, new: str) -> None:
    text = (DEPLOY / "rayjob.yaml").read_text()
    assert old in text
    with pytest.raises(ValidationError):
        RayJob.model_validate(yaml.safe_load(text.replace(old, new)))


def test_the_line_of_the_crontab() -> None:
    (line,) = (line for line in (DEPLOY / "rayjob.yaml").read_text().splitlines() if line.startswith("#   0 2"))
    words = shlex.split(line.lstrip("# "))[5:]
    start = words.index("segjobs")
    assert words[1:4] == ["ray", "job", "submit"]
    assert words[start - 1 : start + 2] == ["--", "segjobs", "nightly"]
    config = load_config(NightlyConfig, None, words[start + 2 :])
    cron = load("raycronjob.yaml")["spec"]["jobTemplate"]
    assert config == load_config(NightlyConfig, None, shlex.split(cron["entrypoint"])[2:])


def test_the_image() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    copied = {word for kind, rest in steps if kind == "COPY" and "--from" not in rest for word in rest.split()[:-1]}
    assert all((DEPLOY.parents[1] / name).exists() for name in copied)
    assert {"pyproject.toml", "README.md", "LICENSE", "conf", "segjobs"} <= copied, "what the wheel is built of"
    names = [kind for kind, _ in steps]
    assert names.count("FROM") == 2, "what builds is left behind"
    assert ["ENTRYPOINT", '["segjobs"]'] in steps
    assert ["ENV", "UV_COMPILE_BYTECODE=1"] in steps[: names.index("RUN", names.index("ENV"))], "before it installs"
    assert ["USER", "segjobs"] in steps[names.index("USER") :][:1], "a plain user"
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("# docker run"):
            words = shlex.split(line)
            assert load_config(LabelConfig, None, words[words.index("label") + 1 :]).model.name == "fcn_resnet50"


@pytest.mark.parametrize("name", ["tests/toy.py", "data/a.npy", "out/x/run.json", "photos/a.jpg", ".git/HEAD"])
def test_an_upload_leaves_data_and_outputs_out(name: str, tmp_path: Path) -> None:
    import segjobs.jobs  # noqa: F401  # sets Ray's environment before Ray is imported

    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files  # isort: skip

    (tmp_path / ".rayignore").write_text((DEPLOY.parents[1] / ".rayignore").read_text())
    excludes = get_excludes_from_ignore_files(tmp_path, include_gitignore=False)
    for path, left_out in ((name, True), ("flows/label.py", False), ("segjobs/page/templates/page.css", False)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
        parents = [tmp_path / path, *(tmp_path / parent for parent in Path(path).parents if parent.name)]
        assert any(exclude(one) for exclude in excludes for one in parents) is left_out


# --- Grafana ---------------------------------------------------------------------------------------


def test_the_dashboard_asks_for_metrics_that_the_code_has() -> None:
    import ray

    board = json.loads((DEPLOY / "grafana.json").read_text())
    (variable,) = [one for one in board["templating"]["list"] if one["name"] == "verb"]
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]] + [variable["query"]["query"]]
    exported = {metric.exported: metric for metric in METRICS}
    named = {name for text in asked for name in re.findall(r"\bray_\w+", text)}
    assert named == exported.keys() | {"ray_node_gpus_utilization"}, "each is shown, and one of Ray's own"
    for text in asked:
        for name, labels in re.findall(r"\b(ray_\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)[=!]", labels)) <= set(exported[name].labels)
        for function, name in re.findall(r"\b(rate|increase)\((ray_\w+)", text):
            assert exported[name].kind == "counter", f"{function} of {name}"
        for label in re.findall(r"\bby \((\w+)\)", text):
            (name,) = set(re.findall(r"\bray_\w+", text.partition(" / ")[0]))
            assert label in exported[name].labels
        assert text.count("(") == text.count(")") and text.count("{") == text.count("}")
    reporter = (Path(ray.__file__).parent / "dashboard/modules/reporter/reporter_agent.py").read_text()
    assert '"node_gpus_utilization": Gauge(' in reporter and '"GpuIndex"' in reporter, "Ray has it no more"
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({panel["id"] for panel in board["panels"]}) == len(places)
