"""The files for KubeRay and crontab: fields that the CRDs have, and commands whose config loads."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from segjobs.config import LabelConfig, NightlyConfig, load_config

DEPLOY = Path(__file__).resolve().parents[1] / "conf" / "deploy"

# The fields of ray.io/v1 in KubeRay's API reference, as far as these files could use them.
JOB = {"activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint"}
JOB |= {"entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata"}
JOB |= {"rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig"}
JOB |= {"submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"}
CLUSTER = {"authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec"}
CLUSTER |= {"headServiceAnnotations", "managedBy", "rayVersion", "suspend", "workerGroupSpecs"}
HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
GROUP = {"groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams"}
GROUP |= {"replicas", "resources", "scaleStrategy", "suspend", "template"}
POD = {"containers", "nodeSelector", "serviceAccountName", "terminationGracePeriodSeconds", "tolerations", "volumes"}
CONTAINER = {"env", "envFrom", "image", "name", "resources", "volumeMounts"}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def check_job(spec: dict[str, Any], verb: str, kind: type[LabelConfig | NightlyConfig]) -> None:
    assert spec.keys() <= JOB
    words = shlex.split(spec["entrypoint"])
    assert words[:2] == ["segjobs", verb]
    config = load_config(kind, None, words[2:])
    cluster = spec["rayClusterSpec"]
    assert cluster.keys() <= CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    head, groups = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head.keys() <= HEAD
    for group in groups:
        assert group.keys() <= GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for pod in (group["template"]["spec"] for group in (head, *groups)):
        assert pod.keys() <= POD
        assert all(container.keys() <= CONTAINER for container in pod["containers"])
        assert pod["terminationGracePeriodSeconds"] > config.compute.grace_s
    (stop,) = head["template"]["spec"]["containers"][0]["env"]
    assert stop["name"] == "RAY_JOB_STOP_WAIT_TIME_S"
    assert int(stop["value"]) > config.compute.grace_s
    assert all(isinstance(value, str) for group in (head, *groups) for value in group["rayStartParams"].values())


def test_the_job() -> None:
    job = load("rayjob.yaml")
    assert job.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check_job(job["spec"], "label", LabelConfig)


def test_the_nightly_job_is_on_the_same_cluster() -> None:
    cron = load("raycronjob.yaml")
    assert (cron["apiVersion"], cron["kind"]) == ("ray.io/v1", "RayCronJob")
    assert cron["spec"].keys() == {"schedule", "jobTemplate"}
    assert len(cron["spec"]["schedule"].split()) == 5
    job = cron["spec"]["jobTemplate"]
    check_job(job, "nightly", NightlyConfig)
    assert job["activeDeadlineSeconds"] < 24 * 3600, "nights do not overlap"
    own = {"activeDeadlineSeconds", "entrypoint"}
    assert [(k, v) for k, v in job.items() if k not in own] == [
        (k, v) for k, v in load("rayjob.yaml")["spec"].items() if k not in own
    ]


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
