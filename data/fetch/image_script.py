"""What the scripts that fetch an image set have in common."""

from data.fetch import download


def install(name, source_help, argv=None):
    """Parse the options of `download_<name>.py` and write `<data_dir>/<name>.npz`."""
    args = download.parse_args(f"Fetch the images, verify them and write data/{name}.npz.", source_help, argv)
    from data.fetch import image_sets  # after parsing: --help answers at once

    image_sets.install(image_sets.IMAGE_SETS[name], args)
