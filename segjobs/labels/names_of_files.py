"""The classes of label files that name them one by one: their URIs in, every name out."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from segjobs.errors import ItemError

_THREADS = 16


def names_of_files(uris: Sequence[str | None], names_of: Callable[[str], set[str]]) -> set[str]:
    """Every name that the files use. Files that cannot be read (ItemError) become failed rows later."""

    def of_file(uri: str) -> set[str]:
        try:
            return names_of(uri)
        except ItemError:
            return set()

    with ThreadPoolExecutor(_THREADS) as threads:
        return set().union(*threads.map(of_file, [uri for uri in uris if uri]))
