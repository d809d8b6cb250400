"""Answer one frame: print exactly SAFE or UNSAFE.

python recipes/infer.py --adapter outputs/qwen2vl_7b_8gb --image frame.jpg
"""

import argparse
from pathlib import Path

from data_prep.errors import run_script
from data_prep.files import from_root
from data_prep.images import read_image
from recipes.library_messages import silence_known_messages
from recipes.safety_record import find_base_of, read_record


def main(argv: list[str]) -> int:
    """Print one answer a line, in the order of the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder of a finished run, for example outputs/demo")
    parser.add_argument("--image", required=True, nargs="+", type=Path, help="one or more JPEG or PNG files")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the model's layers first: a fifth faster on a GPU, worth its ten seconds from 2,000 frames on",
    )
    args = parser.parse_args(argv)
    silence_known_messages()
    folder = from_root(args.adapter)
    record = read_record(folder)
    images = [read_image(from_root(path)) for path in args.image]
    base = find_base_of(folder, record)

    from recipes.adapted_model import load_adapted
    from recipes.modeling import choose_device, compile_layers, has_room_to_merge
    from recipes.scoring import label_of

    device = choose_device()
    merge = has_room_to_merge(base, device)
    adapted = load_adapted(folder, record, base, merge=merge, cuda_graphs=device.type == "cuda")
    if args.compile:
        compile_layers(adapted.model)
    for image in images:
        (p_unsafe,) = adapted.p_unsafe([image])
        print(label_of(p_unsafe, record.threshold), flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)
