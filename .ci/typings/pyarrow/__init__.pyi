# Arrow's classes are compiled and come without types: here they are Any, so that what is made of them is not unknown.
from typing import Any

def __getattr__(name: str) -> Any: ...
