"""Who may ask: whoever reaches the service, or whoever knows the token of a file."""

import hmac
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import read_text
from recipes.serving.address import LOCAL

_BEARER = b"bearer"


def token_for(host: str, file: Path | None) -> bytes | None:
    """Return the token that callers have to show at `host`, None where they need none.

    Raises InputError where the file holds none, or is missing though others than this machine can reach the host.
    """
    if file is None:
        if host != LOCAL:
            raise InputError(f"--host {host} can be reached from elsewhere: name a file with a token, --token-file")
        return None
    token = read_text(file, "--token-file").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"--token-file {file}: has to hold one line, a token of ASCII characters without spaces")
    return token.encode()


def shows(token: bytes, authorization: str | None) -> bool:
    """Say whether an Authorization header shows the token (RFC 6750), in a time that tells nothing of it."""
    kind, _, shown = (authorization or "").encode("latin-1").partition(b" ")
    return hmac.compare_digest(shown.strip(), token) and kind.lower() == _BEARER
