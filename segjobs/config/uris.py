"""URIs in a config: what each means, where a relative one lies, what may be opened, and what may be written."""

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, ValidationInfo

EXTRA_SCHEMES = {"gs": "gs", "az": "az", "http": "http", "https": "http"}
"""URI schemes that ``storage.schemes`` can allow → the extra of the package that opens them."""
_LOST_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/(?!/)")


def check_uri(text: str) -> str:
    """A URI of a scheme that can be opened: a local path, ``file:///path``, ``s3://bucket/key`` or one of
    ``EXTRA_SCHEMES``; ValueError for others."""
    scheme, separator, rest = text.partition("://")
    if "\0" in text:
        raise ValueError("cannot open a name with a NUL character")
    if not separator:
        return text
    if "::" in scheme:
        raise ValueError("cannot open chains of file systems ('::'); expected a local path or s3://bucket/key")
    if scheme not in ("file", "s3", *EXTRA_SCHEMES):
        raise ValueError(f"cannot open {scheme}:// URIs; expected a local path or s3://bucket/key")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError("cannot open a file:// URI of another host; expected file:///path")
    if scheme != "file" and not rest.partition("/")[0]:
        what, path = ("host", "path") if scheme.startswith("http") else ("bucket", "prefix")
        raise ValueError(f"no {what}; expected {scheme}://{what}/{path}")
    return text


def meant(text: str) -> str:
    """A URI as a person writes it → as it is opened: ``~`` is the home folder. ValueError for what nobody means."""
    if text.startswith("~"):
        path = os.path.expanduser(text)  # which leaves the rest of the text as it is
        if path.startswith("~"):
            raise ValueError(f"no home folder is known for it; write the whole path, or ./{text}")
        return path
    found = _LOST_SLASH.match(text)
    if found:  # what pathlib and os.path.normpath make of a URI
        scheme, rest = found[1], text[found.end() :]
        right = f"/{rest}" if scheme == "file" else f"{scheme}://{rest}"
        raise ValueError(f"one slash is no URI; did you mean {right}? (a folder of that name: ./{text})")
    return text


def check_allowed(text: str, info: ValidationInfo) -> str:
    """``meant`` and ``check_uri``, and that ``storage.schemes`` of the same config allows the scheme."""
    text = meant(text)
    scheme, separator, _ = check_uri(text).partition("://")
    if info.context and separator and scheme in EXTRA_SCHEMES and scheme not in info.context["schemes"]:
        raise ValueError(
            f"cannot open {scheme}:// URIs; expected a local path or s3://bucket/key, or allow them: "
            f"storage.schemes=[{scheme}], with segjobs[{EXTRA_SCHEMES[scheme]}] installed"
        )
    return text


def _check_output(text: str, info: ValidationInfo) -> str:
    if text.startswith(("http://", "https://")):
        raise ValueError("cannot write there; expected a folder or s3://bucket/prefix")
    return check_allowed(text, info)


def absolute(text: str) -> str:
    """A URI that means the same in every process: a local path is taken from this one's folder.

    Percent-encoded where that folder's name is no UTF-8. ValueError where the folder is gone.
    """
    if "://" in text or text.startswith("/"):
        return text
    try:
        path = os.fspath(Path.cwd() / text)
    except FileNotFoundError:
        raise ValueError("the current folder is gone; give a whole path, from / on") from None
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


Uri = Annotated[str, Field(min_length=1), AfterValidator(check_allowed), AfterValidator(absolute)]
OutputUri = Annotated[str, Field(min_length=1), AfterValidator(_check_output), AfterValidator(absolute)]
