"""``flows/demo.py``."""

from pydantic import Field, field_validator

from segjobs.config.sections import JobConfig, OutputConfig


class DemoConfig(JobConfig):
    """Draw scenes, train a small U-Net on them, label and score held-out ones, draw a contact sheet."""

    output: OutputConfig = Field(default=OutputConfig.model_construct(uri="out/demo"), validate_default=True)
    train_images: int = Field(default=160, ge=1, description="scenes to train on")
    test_images: int = Field(default=48, ge=1, description="held-out scenes to label and score")
    steps: int = Field(default=80, ge=10, description="training steps of 8 crops")
    encoder: str = Field(default="resnet18", description="encoder of the U-Net")
    seed: int = Field(default=0, ge=0, description="seed of scenes, weights and crops")

    @field_validator("output", mode="before")
    @classmethod
    def _from_the_current_folder(cls, value: object) -> object:
        """The default is a relative path as any other: taken from the command's folder when it is asked for."""
        return value.model_dump() if isinstance(value, OutputConfig) else value
