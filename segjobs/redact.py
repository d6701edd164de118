"""Texts and settings in, the same without secrets out: what is printed or kept never shows a credential.

Secrets are no settings of a job: credentials come from the environment or a profile. ``secrets_in`` finds those
that were put into a config all the same, so that it is refused; ``redact`` takes them out of any text that is
shown or stored, since other libraries' error messages may repeat them.
"""

import re
from collections.abc import Iterator, Mapping

HIDDEN = "***"

# Names that hold a secret wherever they stand, and those that do in a query only: token=3 may be a folder.
_WHEREVER = (
    r"X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|GoogleAccessId|Credential|Signature|"
    r"(?:\w+[_-])?(?:client|consumer|shared)[_-]?(?:secret|access[_-]?key|access[_-]?signature)|"
    r"(?:\w+[_-])?(?:account|api|private|subscription)[_-]?key|(?:\w+[_-])?secret[_-]?(?:access[_-]?)?key|"
    r"(?:\w+[_-])?(?:access|refresh|auth|session|security|sas|id|bearer)[_-]?token|"
    r"(?:\w+[_-])?(?:password|passwd|passphrase|pwd)"
)
_IN_QUERY = rf"(?:{_WHEREVER}|sig|token|secret)"
_NOT_YET = rf"(?!{re.escape(HIDDEN)})"
# What stands for a secret by its form, wherever it appears → what is left of it.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # https://user:p@ss@host: up to the last @ before the path.
    (re.compile(r"(?<=://)[^/\s'\"?#]*:[^/\s'\"]*@"), f"{HIDDEN}@"),
    # https://user:p/ss@host: what follows the colon is no port.
    (re.compile(r"(?<=://)(?<!file://)[^/\s:@'\"\[]+:(?!\d+(?:[/?#\s]|$))[^\s'\"]*@"), f"{HIDDEN}@"),
    (re.compile(r"(?<=://)(?<!hf://)(?<!az://)[^/\s:@'\"?#]+@"), f"{HIDDEN}@"),  # https://token@host
    (re.compile(rf"([?&;]{_IN_QUERY}=){_NOT_YET}[^&;\s'\"#]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(rf"(?<![\w-])((?:{_WHEREVER})\s?=\s?['\"]?){_NOT_YET}[^&;,\s'\"#]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # JSON, YAML and Python: "client_secret": "…"
    (re.compile(rf"(?<![\w-])((?:{_WHEREVER})['\"]?\s?:\s?['\"]){_NOT_YET}[^'\"]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Headers
    (re.compile(r"\b(Bearer|Basic)\s+(?!\*)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(
            rf"((?:Authorization|X-Api-Key|X-Auth-Token|X-Amz-Security-Token)['\"]?\s?:\s?['\"]?(?:Token\s)?)"
            rf"(?!Bearer|Basic|Digest|AWS4){_NOT_YET}[^\s'\",;*]{{8,}}",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # Webhooks whose path is the secret: Slack's, Discord's, Teams'
    (
        re.compile(
            r"(https?://(?:hooks\.slack\.com/(?:services|workflows|triggers)|discord(?:app)?\.com/api/webhooks|"
            rf"[\w.-]+\.webhook\.office\.com/webhookb2)/){_NOT_YET}[^\s'\"]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),  # AWS access key ids
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,})"), HIDDEN),
    (re.compile(r"\b(?:xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}|sk-[\w-]{20,})"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+"), HIDDEN),  # JSON web tokens
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), HIDDEN),
)
_NAMES = re.compile(
    r"(?:^|[_.-])(?:password|passwd|passphrase|pwd|secret|token|authorization|credentials?|connection_?string|"
    r"client_?secret|(?:api|access|secret|private|account|storage|shared_?access|secret_?access)_?key(?:_?id)?)$",
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
