"""URIs in a config: what may be opened, what may be written, and where a relative one lies."""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, ValidationInfo

EXTRA_SCHEMES = {"gs": "gs", "az": "az", "http": "http", "https": "http"}
"""URI schemes that ``storage.schemes`` can allow → the extra of the package that opens them."""


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


def check_allowed(text: str, info: ValidationInfo) -> str:
    """``check_uri``, and that ``storage.schemes`` of the same config allows the scheme."""
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
