"""Sydney-Captions and UCM-Captions (Qu et al., 2016): a copy that was fetched by hand is checked and put in its place.

There is no stable address to fetch them from. A copy is checked by the published number of images in each split.
"""

import os
import shutil
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import PurePosixPath

import files
from data import captions, sources
from data.fetch import download
from options import UserError

SIZES = {
    "sydney": {"train": 497, "val": 58, "test": 58},
    "ucm": {"train": 1680, "val": 210, "test": 210},
}
HOMEPAGE = "https://github.com/201528014227051/RSICD_optimal"
SOURCE_HELP = "a folder or a zip with dataset.json and the images"


def install(args):
    """Write `<data_dir>/<set>/`; raises `UserError`, and then leaves what is there as it was."""
    with opened(args.source) as (paths, read), download.workspace(args.data_dir) as folder:
        name, json_path = find_captions(paths, read, folder, args)
        examples = captions.read_json(json_path)
        target = args.data_dir / name
        if not args.force and target.exists() and set(os.listdir(target)) - {captions.JSON_NAME}:
            raise UserError(f"{target} is there; {download.REPLACING}")
        new = folder / name
        (new / captions.IMAGES_NAME).mkdir(parents=True)
        shutil.copyfile(json_path, new / captions.JSON_NAME)
        copy_images(paths, read, examples, new / captions.IMAGES_NAME, args.source)
        download.put_in_place(new, target, folder / "old")
    sizes = {split: len(part) for split, part in examples.items()}
    shown = ", ".join(f"{sizes[split]:,} {captions.SPLIT_NAMES[split]}" for split in captions.SPLITS)
    print(f"{target}: {sum(sizes.values()):,} images ({shown}), all of them decoded")


@contextmanager
def opened(source):
    """The files of a folder or a zip: (their paths inside it, a function from a path to the bytes)."""
    if source.is_dir():
        paths = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
        yield paths, lambda path: files.read_bytes(source / path)
        return
    if not source.is_file():
        raise UserError(f"there is no {source}; -source takes {SOURCE_HELP}")
    sources.refuse_archive(source, "-source", is_read=(".zip",))
    with download.unpacking(source, "a set of captions"):
        archive = zipfile.ZipFile(source)
        files.check_zip(archive)

    def read(path):
        with download.unpacking(source, path):
            return archive.read(path)

    with archive:
        yield sorted(info.filename for info in archive.infolist() if not info.is_dir()), read


def find_captions(paths, read, folder, args):
    """The name of the set and the path of a copy of its dataset.json."""
    found = [path for path in paths if PurePosixPath(path).name == captions.JSON_NAME]
    if len(found) > 1:
        raise UserError(f"{args.source} has {len(found)} files {captions.JSON_NAME}; name the folder of one set")
    if not found:
        raise UserError(f"{args.source} has no {captions.JSON_NAME}; get it from {HOMEPAGE}")
    json_path = folder / captions.JSON_NAME
    json_path.write_bytes(read(found[0]))
    sizes = {split: len(part) for split, part in captions.read_json(json_path).items()}
    for name, published in SIZES.items():
        if sizes == published:
            return name, json_path
    shown = " / ".join(f"{n:,}" for n in sizes.values())
    expected = " or ".join(" / ".join(f"{n:,}" for n in published.values()) for published in SIZES.values())
    what = f"{captions.JSON_NAME} of {args.source} has {shown} images, not {expected}"
    raise UserError(f"{what}: it is not a published set")


def copy_images(paths, read, examples, folder, source):
    """Copy every named image to `folder` and decode it."""
    names = [example.filename for part in examples.values() for example in part]
    counts = Counter(PurePosixPath(path).name for path in paths)
    twice = [name for name in names if counts[name] > 1]
    if twice:
        raise UserError(f"{source} has {captions.shortened(twice)} more than once; name the folder of one set")
    of_name = {PurePosixPath(path).name: path for path in paths}
    missing = [name for name in names if name not in of_name]
    if missing:
        what = f"{source} lacks {len(missing):,} of the {len(names):,} images that its {captions.JSON_NAME} names"
        raise UserError(f"{what} ({captions.shortened(missing)}); get the whole set")
    for name in names:
        (folder / name).write_bytes(read(of_name[name]))
        try:
            captions.read_image(folder / name)
        except UserError as error:
            raise UserError(f"{source}: {str(error).replace(str(folder / name), of_name[name])}") from None
