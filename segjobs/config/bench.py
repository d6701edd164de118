"""``flows/bench.py``."""

import json
from collections.abc import Sequence

from pydantic import Field, field_validator

from segjobs.config.contradictions import contradiction
from segjobs.config.sections import (
    ComputeConfig,
    DecodeConfig,
    InputConfig,
    JobConfig,
    LabellingModelConfig,
    OutputConfig,
    PostprocessConfig,
    ShardConfig,
    StorageConfig,
)
from segjobs.config.uris import Uri


class BenchConfig(JobConfig):
    """Measure the bare model, the label pipeline and each of its stages in one run."""

    model: LabellingModelConfig
    input: InputConfig | None = Field(
        default=None, description="images to measure with; null draws synthetic JPEGs of mixed sizes"
    )
    images: int = Field(
        default=2000,
        ge=1,
        description="images of each measured run; local ones are repeated (by links) to make as many",
    )
    memory_images: int | None = Field(
        default=None, ge=1, description="also run this many images and compare peak memory; null skips it"
    )
    repeats: int = Field(default=3, ge=1, description="rounds of bare model, pipeline and plain script, by turns")
    bare_s: float = Field(default=8.0, gt=0, description="seconds that each measurement of the bare model lasts")
    plain_script: bool = Field(
        default=True,
        description="also time the plain 30-line Ray Data script (local images, a torchvision semantic model, resize HxW)",
    )
    output: OutputConfig | None = Field(
        default=None,
        description="where bench.json and the measured manifests go; null prints only and works in a temporary folder of this machine",
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    postprocess: PostprocessConfig = Field(default_factory=PostprocessConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)


class BenchCompareConfig(JobConfig):
    """Two benches' figures against each other: segjobs bench compare A.json B.json"""

    files: list[Uri] = Field(description="bench.json of the one and of the other bench")
    storage: StorageConfig = Field(default_factory=StorageConfig)

    @field_validator("files")
    @classmethod
    def _check_two(cls, value: list[str]) -> list[str]:
        if len(value) != 2:
            raise contradiction(f"segjobs bench compare takes two files, A.json B.json; got {len(value)}")
        return value


def compared(words: Sequence[str]) -> list[str]:
    """``a.json b.json`` as ``files=["a.json", "b.json"]``, and the rest as it is."""
    bare = [word for word in words if not word.startswith("-") and "=" not in word]
    return [f"files={json.dumps(bare, ensure_ascii=False)}", *(word for word in words if word not in bare)]
