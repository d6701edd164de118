"""Networks and what is around them: images in, label maps or objects out. Torch is imported where one is built."""

from segjobs.models.lean_torch import defer_compiler

defer_compiler()
