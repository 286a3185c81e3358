"""Sydney-Captions and UCM-Captions (Qu et al., 2016): a copy that was fetched by hand is checked and put in its place.

There is no stable address to fetch them from. A copy is checked by the published number of images in each split.
"""

import os
import shutil

from data import captions
from data.fetch import download
from options import UserError

SIZES = {
    "sydney": {"train": 497, "val": 58, "test": 58},
    "ucm": {"train": 1680, "val": 210, "test": 210},
}
HOMEPAGE = "https://github.com/201528014227051/RSICD_optimal"


def install(args):
    """Write `<data_dir>/<set>/`; raises `UserError`, and then leaves what is there as it was."""
    if not (args.source / captions.JSON_NAME).is_file():
        needed = f"-source takes the unpacked folder with {captions.JSON_NAME} and {captions.IMAGES_NAME}/"
        raise UserError(f"{args.source} has no {captions.JSON_NAME}; {needed}; its homepage is {HOMEPAGE}")
    data = captions.read_folder(args.source, "")  # which needs every image that the JSON names
    sizes = {split: len(data[split]) for split in captions.SPLITS}
    shown = ", ".join(f"{sizes[split]:,} {captions.SPLIT_NAMES[split]}" for split in captions.SPLITS)
    names = [name for name, published in SIZES.items() if sizes == published]
    if not names:
        advice = "hw2-q3-captioning.py -dataset PATH takes any set where it is"
        raise UserError(f"{args.source} has {shown} images, so it is not a published set; {advice}")
    target = args.data_dir / names[0]
    if os.path.lexists(target) and not args.force:
        raise UserError(f"{target} is there; {download.REPLACING}")
    for filename in data.filenames:
        data.open_image(filename)
    with download.workspace(args.data_dir) as folder:
        shutil.copytree(args.source, folder / "new")
        download.put_in_place(folder / "new", target, folder / "old")
    print(f"{target}: {len(data.filenames):,} images ({shown}), all of them decoded")
