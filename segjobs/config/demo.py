"""``flows/demo.py``."""

from pydantic import Field

from segjobs.config.sections import JobConfig, OutputConfig


class DemoConfig(JobConfig):
    """Draw scenes, train a small U-Net on them, label and score held-out ones, draw a contact sheet."""

    output: OutputConfig = Field(default=OutputConfig(uri="out/demo"))
    train_images: int = Field(default=160, ge=1, description="scenes to train on")
    test_images: int = Field(default=48, ge=1, description="held-out scenes to label and score")
    steps: int = Field(default=80, ge=10, description="training steps of 8 crops")
    encoder: str = Field(default="resnet18", description="encoder of the U-Net")
    seed: int = Field(default=0, ge=0, description="seed of scenes, weights and crops")
