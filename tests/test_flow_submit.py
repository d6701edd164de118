"""Jobs submitted to a Ray head that runs for itself, with a token, data on S3: exit statuses, logs, stop and go on."""

import os
import re
from pathlib import Path

import pytest

from segjobs.config import StorageConfig
from segjobs.manifest.parts import list_parts, read_rows
from segjobs.storage import Storage
from tests.pages import GUIDE, blocks
from tests.ray_head import Head, wait_for
from tests.test_flow_s3 import image, png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

IMAGES = 16  # far more than are in flight when the stop comes


def test_submitted_jobs_end_as_the_same_commands_do(ray_head: Head, s3_server: StorageConfig, tmp_path: Path) -> None:
    import segjobs.jobs  # noqa: F401  # sets Ray's environment before Ray is imported

    from ray.job_submission import JobStatus, JobSubmissionClient  # isort: skip

    root = f"s3://segjobs/{tmp_path.name}"
    storage = Storage(s3_server)
    for number in range(IMAGES):
        storage.put_if_absent(f"{root}/in/{number:02d}.png", png(image(number)))
    storage.put_if_absent(f"{root}/in/broken.png", b"no image")
    words = ["--config", "conf/label.yaml", f"storage.s3.endpoint_url={s3_server.s3.endpoint_url}"]
    words += [
        f"input.uri={root}/in",
        f"output.uri={root}/out",
        "model.name=tests.toy_model:build",
    ]
    words += ["shard.images=1", "compute.actors=1", "max_failed_fraction=0"]

    refused = ray_head.job("list", RAY_AUTH_TOKEN_PATH=os.devnull)
    assert refused.returncode != 0, "no token, no answer"

    token = Path(ray_head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    # With the token in a header, since this process may have joined a Ray that has none.
    client = JobSubmissionClient(ray_head.jobs, headers={"Authorization": f"Bearer {token}"})

    def submit(name: str, *more: str, wait: bool = True) -> int | None:
        options = ["--submission-id", name, "--working-dir", ".", *([] if wait else ["--no-wait"])]
        done = ray_head.job("submit", *options, "--", "python", "flows/label.py", *words, *more)
        code = client.get_job_info(name).driver_exit_code
        if wait:
            assert done.returncode == int(code != 0), done.stdout + done.stderr
        return code

    assert submit("typo", "compute.batchsize=3") == 2
    assert "compute.batchsize: unknown key; did you mean 'batch_size'?" in client.get_job_logs("typo")

    submit("stopped", wait=False)
    wait_for(lambda: len(list_parts(storage, f"{root}/out")) >= 2 or client.get_job_status("stopped").is_terminal())
    client.stop_job("stopped")  # `ray job stop` takes seconds to start
    wait_for(lambda: client.get_job_status("stopped").is_terminal())
    assert client.get_job_status("stopped") == JobStatus.STOPPED
    assert "stopped by a signal; what is published stays" in client.get_job_logs("stopped")
    published = len(list_parts(storage, f"{root}/out"))
    assert 2 <= published < IMAGES
    assert not storage.exists(f"{root}/out/run.json")

    assert submit("again") == 3
    logs = client.get_job_logs("again")
    assert "on 1 actor(s) of 1 GPU, decoding in tasks" in logs
    assert f"{published} of them were done by an earlier attempt" in logs
    assert "UNREADABLE 1: 'broken.png'" in logs
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", logs), "plain lines, no bar and no colours"
    assert submit("done", "max_failed_fraction=1") == 0
    assert "nothing to do: run " in client.get_job_logs("done")
    rows = {row["image_id"]: row["status"] for row in read_rows(storage, f"{root}/out")}
    assert rows == {**{f"{n:02d}.png": "ok" for n in range(IMAGES)}, "broken.png": "failed"}


def test_the_guide_s_night_from_python(
    ray_head: Head, s3_server: StorageConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import segjobs.jobs  # noqa: F401  # sets Ray's environment before Ray is imported

    (script,) = (body for body in blocks(GUIDE.read_text("utf-8"), "python") if "JobSubmissionClient" in body)
    (words,) = re.findall(r'"(segjobs nightly .*)"', script)
    root, storage = f"s3://segjobs/{tmp_path.name}", Storage(s3_server)
    own = f"segjobs nightly model.name=tests.toy_model:build input.uri={root}/in collection.uri={root}/street "
    own += f"storage.s3.endpoint_url={s3_server.s3.endpoint_url} compute.actors=1 max_failed_fraction=0"
    script = script.replace("http://ray-head:8265", ray_head.jobs).replace(words, own)
    token = Path(ray_head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()

    storage.put_if_absent(f"{root}/in/00.png", png(image(0)))
    exec(script, {"token": token})  # noqa: S102
    assert "1 images: 1 ok, 0 failed" in capsys.readouterr().out
    storage.put_if_absent(f"{root}/in/broken.png", b"no image")
    with pytest.raises(SystemExit, match=r"^3$"):
        exec(script, {"token": token})  # noqa: S102
    rows = {row["image_id"]: row["status"] for row in read_rows(storage, f"{root}/street")}
    assert rows == {"00.png": "ok", "broken.png": "failed"}
