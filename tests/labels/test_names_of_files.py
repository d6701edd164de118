"""Names out of many files, of which some cannot be read."""

from segjobs.errors import ItemError
from segjobs.labels.names_of_files import names_of_files


def test_all_names_but_those_of_files_that_cannot_be_read() -> None:
    def names_of(uri: str) -> set[str]:
        if uri == "damaged":
            raise ItemError("UNREADABLE", "no")
        return {uri, "cat"}

    assert names_of_files(["a", None, "damaged", "b"], names_of) == {"a", "b", "cat"}
    assert names_of_files([None], names_of) == set()
