"""A batch in parts of fewer rows."""

from recipes.model.forward import Batch

POSITIONS = "position_ids"
MERGED_PATCHES = 4  # the tower merges two by two patches into a visual token


def parts_of(batch: Batch, rows: int) -> list[Batch]:
    """Return VisionCollator's training batch in parts of so many rows, the last of what is left; padding stays.

    Pixels, of shape (patches, 1176), and features, (visual tokens, hidden), go with their frames; positions, of shape
    (3, batch, length), by their second dimension; all else by the first.
    """
    count = len(batch["labels"])
    if count <= rows:
        return [batch]
    patches = [0, *batch["image_grid_thw"].prod(dim=1).cumsum(dim=0).tolist()]
    parts: list[Batch] = []
    for begin in range(0, count, rows):
        stop = min(begin + rows, count)
        first, last = patches[begin], patches[stop]
        places = {
            "pixel_values": slice(first, last),
            "image_features": slice(first // MERGED_PATCHES, last // MERGED_PATCHES),
        }
        others = {name: tensor for name, tensor in batch.items() if name != POSITIONS}
        part = {name: tensor[places.get(name, slice(begin, stop))] for name, tensor in others.items()}
        parts.append({**part, POSITIONS: batch[POSITIONS][:, begin:stop]})
    return parts
