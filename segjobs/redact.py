"""Texts and settings in, the same without secrets out: what is printed or kept never shows a credential.

Secrets are no settings of a job: credentials come from the environment or a profile. ``secrets_in`` finds those
that were put into a config all the same, so that it is refused; ``redact`` takes them out of any text that is
shown or stored, since other libraries' error messages may repeat them.
"""

import re
from collections.abc import Iterator, Mapping

HIDDEN = "***"

_SIGNED = (
    r"X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|GoogleAccessId|Signature|sig|"
    r"access_token|auth_token|token|api_?key|password|passwd|secret"
)
# What stands for a secret by its form, wherever it appears → what is left of it.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?<=://)[^/\s'\"@?#]*:[^/\s'\"@]*@"), f"{HIDDEN}@"),  # https://user:password@host
    (re.compile(rf"([?&](?:{_SIGNED})=)(?!{re.escape(HIDDEN)})[^&\s'\"#]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),  # AWS access key ids
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|glpat-[\w-]{20,})"), HIDDEN),  # tokens of hubs
    (re.compile(r"\b(Bearer|Basic)\s+(?!\*)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), HIDDEN),
)
_NAMES = re.compile(
    r"(?:^|[_.-])(?:password|passwd|secret|token|api_?key|access_?key(?:_?id)?|secret_?key|private_?key|credentials?)$",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """``text`` with ``***`` in place of credentials in URIs, signatures of signed URLs, keys and tokens."""
    for pattern, left in _PATTERNS:
        text = pattern.sub(left, text)
    return text


def is_secret_name(name: str) -> bool:
    """Whether a key or a variable of this name holds a secret: AWS_SECRET_ACCESS_KEY, hub_token, password."""
    return bool(_NAMES.search(name))


def secrets_in(value: object, key: str = "", *, names_below: str = "") -> Iterator[str]:
    """The dotted keys of a config's values that are secrets by their form, or by their name below ``names_below``."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            inner = f"{key}.{name}" if key else str(name)
            if isinstance(one, str) and one and key.startswith(names_below) and is_secret_name(str(name)):
                yield inner
            else:
                yield from secrets_in(one, inner, names_below=names_below)
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from secrets_in(one, f"{key}.{number}", names_below=names_below)
    elif isinstance(value, str) and redact(value) != value:
        yield key
