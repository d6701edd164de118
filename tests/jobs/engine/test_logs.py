"""Lines of the log: of which run and shard they are, in a process and in Ray's workers."""

import logging
import re
from pathlib import Path

import pyarrow as pa
import pytest

from segjobs.config import LabelConfig
from segjobs.jobs.engine.logs import LOGGER, _Line, _Words, log_rows, logging_about
from tests.in_process import label_in_process
from tests.jobs.nightly.test_job import draw


def formatted(record: logging.LogRecord) -> str:
    _Words().filter(record)
    return _Line().format(record)


def record_of(message: str, *values: object, name: str = "segjobs") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "", 0, message, values, None)


def test_a_line_says_of_which_shard_it_is() -> None:
    with logging_about(run="0123", shard=12), logging_about(stage="labelling"):
        line = formatted(record_of("%s %r", "TRUNCATED", "a\n\x1b[31mb.jpg?X-Amz-Signature=hunter2"))
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ WARNING segjobs run=0123 shard=12 stage=labelling: .*", line
        )
        assert "hunter2" not in line and "\x1b" not in line
        assert " own.model run=0123 shard=12 stage=labelling: x" in formatted(record_of("x", name="own.model"))
    assert formatted(record_of("x")).endswith("Z WARNING segjobs: x"), "outside of a shard nothing is said of one"


def test_failed_images_are_named_a_bounded_number(caplog: pytest.LogCaptureFixture) -> None:
    error = {"code": "TRUNCATED", "message": "ends early"}
    rows = pa.Table.from_pylist([{"image_id": f"{n}.jpg", "error": error if n else None} for n in range(26)])
    log_rows(rows)
    assert len(caplog.messages) == 21
    assert caplog.messages[0] == "TRUNCATED '1.jpg': ends early" and caplog.messages[-1] == "and 5 more failed"
    caplog.clear()
    log_rows(rows.slice(0, 1))
    assert caplog.messages == []


def config_of(folder: Path) -> LabelConfig:
    for number in range(3):
        draw(folder, f"{number}.png", number)
    (folder / "photos/broken.png").write_bytes(b"\x89PNG no")
    return LabelConfig.model_validate(
        {"input": {"uri": str(folder / "photos")}, "output": {"uri": str(folder / "out")}, "shard": {"images": 2},
         "model": {"name": "tests.toy_model:build"}, "compute": {"actors": 1}, "max_failed_fraction": 1}
    )  # fmt: skip


def test_a_job_in_this_process_logs_where_its_logging_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)
    run = label_in_process(config_of(tmp_path))
    found = {(one.run, one.shard, one.stage, one.getMessage()) for one in caplog.records if one.name == LOGGER.name}  # type: ignore[attr-defined]
    assert (run.run_id, 0, "write", "published: 2 images, 2 ok") in found
    assert (run.run_id, 1, "write", "published: 2 images, 1 ok") in found
    assert any(one[:3] == (run.run_id, 1, "write") and one[3].startswith("TRUNCATED 'broken.png': ") for one in found)
    assert "TRUNCATED 'broken.png'" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_workers_logs_carry_run_and_shard(tmp_path: Path) -> None:
    import ray

    from segjobs.jobs.label.job import label

    run = label(config_of(tmp_path))
    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    lines = [line for file in folder.glob("worker-*.err") for line in file.read_text(errors="replace").splitlines()]
    own = [line for line in lines if f" run={run.run_id} " in line]  # type: ignore[union-attr]
    assert any(line.endswith(" shard=0 stage=labelling: 2 images begun") for line in own)
    assert any(" shard=1 stage=write: TRUNCATED 'broken.png': " in line for line in own)
    assert sum(" stage=write: published: 2 images, " in line for line in own) == 2
