"""A model in; a line for each thing that every model must hold out. In this process, without Ray.

model.* → card, Segmenter (models/registry.py) → models/contract.py → a line a check → CheckResult
"""

from typing import TYPE_CHECKING

from segjobs.config import CheckConfig
from segjobs.errors import ConfigError, ExitCode
from segjobs.jobs.engine.terminal import Terminal
from segjobs.results import CheckResult
from segjobs.storage import Storage

if TYPE_CHECKING:
    from segjobs.models.base import Segmenter


def check(config: CheckConfig) -> CheckResult:
    """Build the model that ``config.model`` names and try it. Raises ConfigError or WeightsError."""
    from segjobs.models.contract import Subject, check_device, run_contract
    from segjobs.models.factories import write_traceback
    from segjobs.models.registry import build, resolve

    check_device(config.device)
    if config.model.runtime != "torch":
        raise ConfigError(
            f"model.runtime={config.model.runtime}: check tries the network as torch computes it, and label holds "
            "another runtime's first batch against that; drop it"
        )
    storage = Storage(config.storage)

    def built() -> "Segmenter":
        return build(config.model, storage, device=config.device, precision=config.precision)

    card = resolve(config.model, storage)
    segmenter = built()
    if segmenter.card != card:
        raise ConfigError(
            f"model.name {config.model.name!r}: its card is another each time that it is built, or on another device; "
            "expected the same digest, categories and preprocessing for the same options"
        )
    console = Terminal()
    console.print(f"{card.label}: {card.task}, {len(card.categories)} classes, on {config.device}")
    faults: dict[str, str | None] = {}
    for found in run_contract(Subject(segmenter, config.device, built)):
        faults[found.check] = found.fault
        words = f"FAILED  {found.check}: {found.fault}" if found.fault else f"ok      {found.check}"
        if found.note:
            words = f"–       {found.check}: {found.note}"
        console.print(words)
        if found.cause:
            console.print(f"        traceback: {write_traceback(found.cause)}")
    missed = sum(fault is not None for fault in faults.values())
    return CheckResult(card.label, faults, ExitCode.GATE_MISSED if missed else ExitCode.DONE)
