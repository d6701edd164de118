"""How a job ended, told to whoever waits for it: the JSON line of its result in, a command or a webhook called.

    result.text(), or the line of what stopped it ─→ tell ─┬→ notify.command: on its standard input
                                                           └→ notify.webhook: POST

What a job has done is done and told on standard output before: a command or a webhook that fails is a line for people,
and changes neither the result nor the exit status. Whatever a URL or a reply may hold of secrets is not shown.
"""

import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from segjobs.config import NotifyConfig
from segjobs.errors import ExitCode
from segjobs.redact import redact
from segjobs.text import visible

_TRIES = 3
_WAIT_S = 1.0  # before the second try; twice as long before the third
_STOPPED_S = 5.0  # at most, for one try: what has sent SIGTERM sends SIGKILL soon
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


def tell(config: NotifyConfig, verb: str, text: str, code: ExitCode) -> None:
    """Call what ``config`` names, with the verb added to each line of ``text`` (JSON); raises for nothing it calls."""
    if config.when == "failure" and code == ExitCode.DONE:
        return
    lines = [json.dumps({"verb": verb, **json.loads(line)}, ensure_ascii=False) for line in text.splitlines()]
    body = "".join(visible(line) + "\n" for line in lines)
    stopped = code == ExitCode.STOPPED
    timeout_s = min(config.timeout_s, _STOPPED_S) if stopped else config.timeout_s
    if config.command:
        _told("command", _run(config.command, verb, body, code, timeout_s))
    if config.webhook is not None:
        _told("webhook", _post(config.webhook, body, timeout_s, tries=1 if stopped else _TRIES))


def _told(what: str, trouble: str | None) -> None:
    if trouble is not None:
        line = visible(redact(" ".join(trouble.split())))
        sys.stderr.write(f"notify.{what}: nobody was told: {line}; the job's result stands\n")


def _run(command: list[str], verb: str, body: str, code: ExitCode, timeout_s: float) -> str | None:
    """What went wrong; None where nothing did."""
    environment = {**os.environ, "SEGJOBS_VERB": verb, "SEGJOBS_EXIT_CODE": str(int(code))}
    try:
        # What it prints goes to standard error: standard output has the result alone.
        subprocess.run(  # noqa: S603  # the operator's own
            command, input=body.encode(), stdout=2, env=environment, timeout=timeout_s, check=True
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} took longer than {timeout_s:g} s"
    except subprocess.CalledProcessError as error:
        return f"{command[0]} ended with {error.returncode}"
    except (OSError, ValueError) as error:
        return f"{command[0]}: {error}"
    return None


def _post(webhook: str, body: str, timeout_s: float, *, tries: int) -> str | None:
    """What went wrong at last; None where it was taken."""
    url = os.environ.get(webhook.removeprefix("env:"), "") if webhook.startswith("env:") else webhook
    host = urlsplit(url).hostname if url.startswith(("http://", "https://")) else None
    if host is None:
        return f"{webhook} is not set to a URL http://… or https://…" if webhook != url else "it is no URL"
    kind = "application/json" if body.count("\n") == 1 else "application/x-ndjson"
    trouble: str | None = None
    for number in range(tries):
        if number:
            time.sleep(_WAIT_S * 2 ** (number - 1))
        request = urllib.request.Request(url, body.encode(), {"Content-Type": kind}, method="POST")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310  # http or https
                return None
        except urllib.error.HTTPError as error:
            error.close()
            trouble = f"{host} answers {error.code} {error.reason}"
            if error.code not in _AGAIN:
                break
        except urllib.error.URLError as error:
            trouble = f"{host}: {error.reason}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            trouble = f"{host}: {type(error).__name__}"
    return trouble
