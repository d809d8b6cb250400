"""How things look and are called where people read them: colours, thumbnails, words. Imports no torch."""

import base64
import io

from PIL import Image

from data_prep.files import PROJECT_ROOT, from_root
from data_prep.labels import SOURCE_CLASSES, UNSAFE

LIGHT = "--ink:#1d2329;--muted:#5b6672;--line:#d5dbe1;--safe:#0b7a6f;--unsafe:#b93815;--base:#5b6672;--probe:#6a3fb5"
DARK = "--ink:#e8ecf0;--muted:#9aa5b1;--line:#3a444f;--safe:#4fc3b5;--unsafe:#ff8a5c;--base:#9aa5b1;--probe:#b79cf2"
SHORT_NAMES = {"base_model": "base model", "linear_probe": "linear probe", "always_unsafe": f"always {UNSAFE}"}
THUMBNAIL_SIDE = 360  # pixels
SMALL_BASE = PROJECT_ROOT / "tiny_base" / "weights"


def thumbnail(image: Image.Image, side: int = THUMBNAIL_SIDE) -> str:
    """Return an RGB image, shrunk to at most `side` pixels a side, as a data URI."""
    small = image.copy()
    small.thumbnail((side, side))
    content = io.BytesIO()
    small.save(content, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def is_small_base(base_model: str) -> bool:
    """Say whether a base, by its name in safety.json, is the small one that ships with the project."""
    return from_root(base_model) == SMALL_BASE


def class_in_words(folder: str) -> str:
    """Return a source class's folder name as words: `0_safe_walkway_violation` is safe walkway violation.

    Of the published eight alone the digit goes: in another name it may be a part of what it says.
    """
    return {each.folder: each.name for each in SOURCE_CLASSES}.get(folder, folder).replace("_", " ")
