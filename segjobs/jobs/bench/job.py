"""Measure the label job against its limit: a config in, a table and one JSON line out.

    images ─→ rounds of │ bare model, single stages │ label job │ plain script │ ─→ medians, ratios, memory

All sides are measured by turns, each in processes of its own, so that what else the machine does
meets them alike: believe the ratios before the rates. Where rounds differ by more than a quarter, the figure says that
the machine was too noisy to judge. ``figures.py`` is how rounds become figures, ``compare.py`` holds two benches
against each other.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import ray
from rich.table import Table

from segjobs.config import BenchConfig, InputConfig, LabelConfig, OutputConfig
from segjobs.errors import ConfigError, ConflictError
from segjobs.jobs.bench.bare_model import Bare, StageTime, measure_bare, measure_stages
from segjobs.jobs.bench.figures import cells, spread_of
from segjobs.jobs.bench.runs import Observed, PlainArguments, SteadyWindow, run_label, run_plain, steady_window
from segjobs.jobs.engine.cluster import connect
from segjobs.jobs.engine.gpu_use import fullest, mean_busy_percent
from segjobs.jobs.engine.layout import Layout, Resources, layout
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.label.job import most_in_flight
from segjobs.manifest.plan import make_plan
from segjobs.manifest.rows import planned_items
from segjobs.manifest.run_info import GpuUse
from segjobs.results import BenchResult
from segjobs.sources.images import list_images
from segjobs.sources.synthetic import write_photos
from segjobs.storage import Storage, is_remote, join, local_path

_DRAWN_IMAGES = 420
_BARE_IMAGES = 160  # held decoded: 150 MB at 640×480
_MB = 2**20
_BARE = {
    "predict": "bare model: prepare, forward, restore; one process",
    "forward": "bare forward alone; one process",
    "forward_split": "bare forward alone; a process for each actor",
    "torch forward": "bare forward alone by torch; one process",
}
"""What is measured of the bare model, by its name in bench.json; the last where ``model.runtime`` is not torch."""


def bench(config: BenchConfig) -> BenchResult:
    """Measure what ``config`` describes and tell it on standard error. Raises a SegjobsError where it cannot."""
    storage = Storage(config.storage)
    target = join(config.output.uri, "bench.json") if config.output else None
    if target and storage.exists(target):
        raise ConflictError(f"{target} is there already; choose a new output.uri")
    if config.output:
        check_writable(config.output.uri)
    from segjobs.models.registry import resolve  # may import torch

    resolve(config.model, storage)  # what does not fit is said before images are drawn and a Ray is started
    _check_plain(config)
    console = Terminal()
    with TemporaryDirectory(prefix="segjobs-bench-") as folder:
        rounds = _Bench(config, Path(folder), lambda text: console.print(f"bench: {text}"))
        report = _report(config, rounds.run())
    for table in _tables(report):
        console.print(table)
    if target:
        storage.put_if_absent(target, json.dumps(report, ensure_ascii=False).encode())
    return BenchResult(report)


# --- measuring ---------------------------------------------------------------------------------


@dataclass
class _Measured:
    """What the rounds gave, in their order; ``bare`` has one more, from behind the last round."""

    have: Resources
    lay: Layout
    bare: list[Bare] = field(default_factory=list)
    stages: list[dict[str, StageTime]] = field(default_factory=list)
    label: list[Observed] = field(default_factory=list)
    plain: list[Observed] = field(default_factory=list)
    long: Observed | None = None


class _Bench:
    """The images, the places and the numbering of one bench's runs."""

    def __init__(self, config: BenchConfig, scratch: Path, note: Callable[[str], None]) -> None:
        self._config = config
        self._scratch = scratch
        self._note = note
        self._work = config.output.uri if config.output else str(scratch)
        self._runs = itertools.count(1)
        self._resources = connect(config.compute)
        self._lay = layout(config.compute, self._resources)
        _check_shards(config, self._lay, self._resources)
        note(f"preparing {config.images} images")
        self._inputs = _inputs(config, scratch / "images", config.images)
        plan = make_plan(list_images(Storage(config.storage), self._inputs), config.shard, limit=_BARE_IMAGES)
        self._files = planned_items(plan.items)

    def run(self) -> _Measured:
        """All rounds; every side in processes that live for its turn only."""
        config, measured = self._config, _Measured(self._resources, self._lay)
        for number in range(1, config.repeats + 1):
            self._note(f"round {number} of {config.repeats}: bare model and single stages")
            measured.bare.append(self._bare())
            measured.stages.append(measure_stages(config, self._files, self._lay, self._new_place()))
            ray.shutdown()
            self._note(f"round {number} of {config.repeats}: label job")
            measured.label.append(self._label(self._inputs))
            if config.plain_script:
                self._note(f"round {number} of {config.repeats}: plain script")
                measured.plain.append(self._plain())
        self._note("bare model once more")
        measured.bare.append(self._bare())
        ray.shutdown()
        if config.memory_images:
            self._note(f"label job on {config.memory_images} images")
            inputs = _inputs(config, self._scratch / "more_images", config.memory_images)
            measured.long = self._label(inputs)
        return measured

    def _new_place(self) -> str:
        return join(self._work, f"run-{next(self._runs):02d}")

    def _bare(self) -> Bare:
        connect(self._config.compute)
        return measure_bare(self._config, self._files, self._lay)

    def _label(self, inputs: InputConfig) -> Observed:
        alike = ("model", "decode", "postprocess", "compute", "shard", "storage")
        output = OutputConfig(uri=self._new_place())
        settings = {name: getattr(self._config, name) for name in alike}
        return run_label(LabelConfig(input=inputs, output=output, max_failed_fraction=1, **settings), self._scratch)

    def _plain(self) -> Observed:
        model, compute = self._config.model, self._config.compute
        arguments = PlainArguments(
            folder=local_path(self._inputs.uri),
            output=self._scratch / f"plain-{next(self._runs):02d}",
            model=model.name,
            size=model.resize or "",
            batch_size=compute.batch_size,
            actors=_plain_actors(self._lay, self._resources),
            gpus_per_actor=self._lay.gpus_per_actor,
        )
        return run_plain(arguments, compute.address)


def _plain_actors(lay: Layout, have: Resources) -> int:
    return lay.max_actors if lay.gpus_per_actor else max(1, int(have.cpus) - 1)


def _check_plain(config: BenchConfig) -> None:
    """Raise ConfigError where the plain script cannot do what the pipeline does."""
    remote = config.input is not None and is_remote(config.input.uri)
    if config.plain_script and (remote or "x" not in (config.model.resize or "")):
        raise ConfigError(
            "plain_script: the plain script reads local images and resizes them to a fixed size: "
            "set model.resize=256x256 and a local input, or plain_script=false"
        )


def _check_shards(config: BenchConfig, lay: Layout, have: Resources) -> None:
    """Raise ConfigError where a run is too short to have a steady state."""
    shards, needed = config.images // config.shard.images, 2 * lay.max_actors + most_in_flight(lay, have.cpus)
    if shards < needed:
        raise ConfigError(
            f"images: {config.images} are {shards} shards of {config.shard.images}; {lay.max_actors} actors reach a "
            f"steady state with {needed} or more: raise images or lower shard.images"
        )


def _inputs(config: BenchConfig, folder: Path, count: int) -> InputConfig:
    """``count`` images for a run: a folder of links to local ones, again and again, or a remote listing.

    Raises ConfigError where there are none, or too few remote ones.
    """
    if config.input is None:
        drawn = folder.parent / "drawn"
        if not drawn.exists():
            write_photos(drawn, count=min(count, _DRAWN_IMAGES), seed=0)
        source = InputConfig(uri=str(drawn))
    else:
        source = config.input
    found = make_plan(list_images(Storage(config.storage), source), config.shard, limit=source.limit)
    files = planned_items(found.items)
    if not files:
        raise ConfigError(f"input.uri: {source.uri}: no image matches input.include")
    if is_remote(source.uri):
        if len(files) < count:
            raise ConfigError(f"images: {count}, but {source.uri} has {len(files)}: lower images or memory_images")
        return source.model_copy(update={"limit": count})
    folder.mkdir()
    for number, file in zip(range(count), itertools.cycle(files)):
        path = local_path(file.uri)
        (folder / f"{number:07d}_{path.name}").symlink_to(path)
    return InputConfig(uri=str(folder), include=source.include)


# --- reporting ---------------------------------------------------------------------------------


def _report(config: BenchConfig, measured: _Measured) -> dict[str, Any]:
    """The figures as JSON: rates in images/s, times in s or ms, memory in MiB."""
    have, lay = measured.have, measured.lay
    waiting = most_in_flight(lay, have.cpus)  # so many may be ready before the writers, which start last
    label = [steady_window(run.published, lay.max_actors, waiting=waiting) for run in measured.label]
    # The script's files come late and in bursts, since its writers wait behind its readers for a CPU.
    plain = [run.working for run in measured.plain]
    startups_s = [_startup_s(run, window, lay.max_actors) for run, window in zip(measured.label, label, strict=True)]
    plain_startups_s = [window.begin_s - run.started_s for run, window in zip(measured.plain, plain, strict=True)]
    ratios: dict[str, Any] = {}
    bare = _bare_rates(measured.bare)
    for kind, rates in bare.items():
        # Each round's pipeline against the bare model as it was before and after it.
        around = [mean(pair) for pair in itertools.pairwise(rates)]
        ratios[f"pipeline / bare {kind}"] = _ratios((window.images_per_s for window in label), around)
    if plain:
        ratios["pipeline / plain script"] = _ratios(
            (window.images_per_s for window in label), (window.images_per_s for window in plain)
        )
        ratios["whole run, pipeline / plain script"] = _ratios(
            (run.command_s for run in measured.plain), (run.command_s for run in measured.label)
        )
    stages_ms = {stage: spread_of(run[stage].ms for run in measured.stages) for stage in measured.stages[0]}
    stages_cpu_ms = {stage: spread_of(run[stage].cpu_ms for run in measured.stages) for stage in measured.stages[0]}
    medians = {stage: spread["median"] for stage, spread in stages_ms.items()}
    phases = dict.fromkeys(phase for run in measured.label for phase in run.phases_s)
    remote = config.input is not None and is_remote(config.input.uri)
    runs = measured.label + ([measured.long] if measured.long else [])
    return {
        "model": config.model.name,
        "runtime": config.model.runtime,
        "resize": config.model.resize,
        "batch_size": config.compute.batch_size,
        "images": config.images,
        "shard_images": config.shard.images,
        "layout": str(lay),
        "ratios": ratios,
        "bare": {kind: spread_of(rates) for kind, rates in bare.items()},
        "pipeline": _side(measured.label, label, startups_s),
        "gpus": _gpus([run.gpus for run in measured.label]),
        "plain_script": _side(measured.plain, plain, plain_startups_s) if plain else None,
        "start_s": {phase: spread_of(run.phases_s.get(phase, 0.0) for run in measured.label) for phase in phases},
        "stages_ms": stages_ms,
        "stages_cpu_ms": stages_cpu_ms,
        "get_cpu_ms": stages_cpu_ms["read"] if remote else None,
        "bottleneck": bottleneck(medians, have.cpus, lay.max_actors * lay.gpus_per_actor),
        "memory_mb": [
            {"images": run.whole.images, **{name: round(n / _MB) for name, n in asdict(run.memory).items()}}
            for run in runs
        ],
    }


def _bare_rates(bare: Sequence[Bare]) -> dict[str, list[float]]:
    """Images per second of every round, by the names of ``_BARE``."""
    found = {name: [getattr(one, name.replace(" ", "_")) for one in bare] for name in _BARE}
    return {name: rates for name, rates in found.items() if None not in rates}


def _startup_s(run: Observed, window: SteadyWindow, actors: int) -> float:
    """Seconds to the first file less what its images take at the steady rate."""
    return run.first_file_s - actors * run.first_file_images / window.images_per_s


def _side(runs: Sequence[Observed], windows: Sequence[SteadyWindow], startups_s: Iterable[float]) -> dict[str, Any]:
    """One side's figures."""
    return {
        "whole_run_s": spread_of(run.command_s for run in runs),
        "images_per_s": spread_of(window.images_per_s for window in windows),
        "cpu_ms_per_image": spread_of(run.cpu_ms(window) for run, window in zip(runs, windows, strict=True)),
        "first_file_s": spread_of(run.first_file_s for run in runs),
        "startup_s": spread_of(startups_s),
        "whole_run_images_per_s": spread_of(run.whole.images_per_s for run in runs),
    }


def _gpus(runs: Sequence[Mapping[str, GpuUse]]) -> dict[str, Any] | None:
    """How busy the GPUs were in the pipeline's runs, and the memory of the fullest; None unless each run says it."""
    if not all(runs):
        return None
    return {
        "count": max(map(len, runs)),
        "busy_percent": spread_of(map(mean_busy_percent, runs)),
        "used_mb": spread_of(fullest(run).used_bytes / _MB for run in runs),
        "total_mb": round(fullest(runs[0]).total_bytes / _MB),
    }


def _ratios(above: Iterable[float], below: Iterable[float]) -> dict[str, Any]:
    return spread_of(one / other for one, other in zip(above, below, strict=True))


def bottleneck(stages_ms: Mapping[str, float], cpus: float, gpus: float) -> str:
    """The stage that limits the pipeline, from the milliseconds per image of each on one thread or GPU.

    All stages share the CPUs; where there are GPUs, ``forward`` has those to itself.
    """
    on_cpu = {stage: ms for stage, ms in stages_ms.items() if stage != "forward" or not gpus}
    if gpus and stages_ms["forward"] / gpus >= sum(on_cpu.values()) / cpus:
        return "forward"
    return max(on_cpu, key=lambda stage: on_cpu[stage])


def _tables(report: Mapping[str, Any]) -> Iterable[Table]:
    rates = Table(
        *("", "images/s", "least – most", "CPU ms/image", "start-up s", "command to end s"),
        title=f"{report['model']} by {report['runtime']}, {report['layout']}",
    )
    for kind, spread in report["bare"].items():
        rates.add_row(_BARE[kind], *cells(spread))
    for name in ("pipeline", "plain_script"):
        if side := report[name]:
            others = (side[figure]["median"] for figure in ("cpu_ms_per_image", "startup_s", "whole_run_s"))
            rates.add_row(name.replace("_", " "), *cells(side["images_per_s"]), *(f"{value:.1f}" for value in others))
    yield rates
    ratios = Table("ratio of steady rates", "median", "least – most", "")
    for name, spread in report["ratios"].items():
        ratios.add_row(name, *cells(spread, digits=2), "too noisy to judge" if spread["noisy"] else "")
    yield ratios
    if gpus := report["gpus"]:
        cards = Table(f"{gpus['count']} GPU(s), pipeline", "median", "least – most")
        cards.add_row("busy, % of the time", *cells(gpus["busy_percent"]))
        cards.add_row(f"memory at most, of {gpus['total_mb']} MiB", *cells(gpus["used_mb"], digits=0))
        yield cards
    phases = Table("phase of the start", "s", "least – most")
    for phase, spread in report["start_s"].items():
        phases.add_row(phase, *cells(spread))
    yield phases
    stages = Table("stage alone, one thread", "ms/image", "CPU ms/image", "images/s")
    for stage, spread in report["stages_ms"].items():
        mark = " (bottleneck)" if stage == report["bottleneck"] else ""
        cpu = report["stages_cpu_ms"][stage]["median"]
        stages.add_row(
            stage + mark, f"{spread['median']:.2f}", f"{cpu:.2f}", f"{1000 / max(spread['median'], 0.001):.0f}"
        )
    yield stages
    memory = Table("peak memory, MiB", "driver RSS", "driver USS", "largest worker RSS", "largest worker USS")
    for run in report["memory_mb"]:
        memory.add_row(f"{run['images']} images", *(str(value) for name, value in run.items() if name != "images"))
    yield memory
