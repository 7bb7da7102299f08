"""Channels that people read (chat, mail, a webhook), through apprise: one URL a channel.

Source:
    apprise's manual lists the URLs of each service; `json://` and `jsons://` post JSON to a webhook of one's own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from microbatch.errors import redacted, shortened

MOST_SAID = 200  # characters of what a channel answers: enough to see which it was
TIMEOUTS = "cto=3&rto=5"  # seconds to connect and to answer: a run does not wait longer for a channel that is down


def send(url: str, title: str, text: str, kind: str, secrets: Iterable[str]) -> str | None:
    """Send one message.

    Args:
        url: as apprise writes it; a plain http(s) address that is no service's own gets the message as JSON.
        kind: info, warning, failure or success: services colour a message by it.
        secrets: taken out of the message, and of what is said of a failure.

    Returns:
        None where it was delivered, else why not, in a line.
    """
    import apprise

    secrets = tuple(secrets)
    # What apprise logs holds the url, and with it the channel's secret: it is caught here and goes nowhere else.
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.handlers = logger.handlers or [logging.NullHandler()]
    sender = apprise.Apprise(asset=apprise.AppriseAsset(app_id="microbatch", async_mode=False))
    if not (sender.add(_bounded(url)) or sender.add(_bounded(_as_json(url)))):
        return "its url is none that apprise knows"
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:
        try:
            delivered = sender.notify(
                body=redacted(text, secrets),
                title=redacted(title, secrets),
                notify_type=apprise.NotifyType(kind),
                body_format=apprise.NotifyFormat.TEXT,
            )
        except Exception as cause:  # a plugin may raise whatever its service's library raises
            return shortened(redacted(f"{type(cause).__name__}: {cause}", (*secrets, url)), MOST_SAID)
        lines = [line.strip() for line in said.getvalue().splitlines() if line.strip()]
    answer = "; ".join(dict.fromkeys(lines)) or "it did not take the message"
    return None if delivered else shortened(redacted(answer, (*secrets, url)), MOST_SAID)


def _as_json(url: str) -> str:
    """A plain http(s) address as apprise writes one that gets JSON: what is asked of the server carries a - there, and what does
    not is a setting of apprise's own.

    Source: apprise's manual, "JSON HTTP POST Notifications".
    """
    address, asked, query = re.sub(r"^http(s?)://", r"json\1://", url).partition("?")
    return address + asked + re.sub(r"(^|&)(?=[^&+:-])", r"\1-", query)


def _bounded(url: str) -> str:
    return url if "cto=" in url or "rto=" in url else f"{url}{'&' if '?' in url else '?'}{TIMEOUTS}"
