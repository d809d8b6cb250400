"""What a request's body holds: frames, and the name of a camera. Nothing of it goes to disk."""

import logging
from dataclasses import dataclass, field
from functools import partial
from threading import Event

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from recipes.serving.refusals import Refused

MULTIPART = b"multipart/form-data"
CAMERA = "camera"
MOST_CHARACTERS = 128  # of a camera's name, and of a request's
IN_MEMORY = {"MAX_MEMORY_FILE_SIZE": float("inf")}


@dataclass
class Parts:
    """A request's frames, encoded, in order, and its camera, if it names one."""

    frames: list[bytes] = field(default_factory=list)
    camera: str | None = None


def is_form(content_type: str) -> bool:
    """Say whether a body of that type has parts."""
    return parse_options_header(content_type)[0] == MULTIPART


def read_form(content_type: str, body: bytes, most: int) -> Parts:
    """Return what a form holds: every part but `camera` is a frame.

    Raises Refused where the form is damaged, or has more than `most` frames.
    """
    found, ended = Parts(), Event()
    taken = partial(_take, found, most)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    try:
        boundary = parse_options_header(content_type)[1][b"boundary"]
        parser = FormParser(MULTIPART.decode(), taken, taken, ended.set, boundary, config=IN_MEMORY)
        parser.write(body)
        parser.finalize()
    except (FormParserError, KeyError):
        ended.clear()
    if not ended.is_set():
        raise Refused(422, f"the form is damaged or cut off; send {MULTIPART.decode()}, a part a frame")
    return found


def _take(found: Parts, most: int, part: Field | File) -> None:
    """Add what a part of a form holds."""
    content = _content_of(part)
    if part.field_name == CAMERA.encode():
        if found.camera is not None:
            raise Refused(422, f"{CAMERA} stands twice in the form; a request has one")
        found.camera = camera_of(content.decode("utf-8", "surrogateescape"))
    elif len(found.frames) == most:
        raise Refused(413, f"more than {most} frames in one request; send fewer at once")
    else:
        found.frames.append(content)


def _content_of(part: Field | File) -> bytes:
    if isinstance(part, Field):
        return part.value or b""
    part.file_object.seek(0)
    return part.file_object.read()


def camera_of(name: str | None) -> str | None:
    """Return a camera's name, None where there is none. Raises Refused for one that couldn't be told in a line."""
    if name is not None and not (0 < len(name) <= MOST_CHARACTERS and name.isprintable()):
        raise Refused(422, f"camera has to be 1 to {MOST_CHARACTERS} printable characters")
    return name
