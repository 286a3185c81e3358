"""Image files, a user's own and those of the captioned sets, to pixels."""

import logging
import warnings

import numpy as np

import files
from options import UserError

MAX_PIXELS = 50_000_000  # of an image; decoded it has 150 MB, and 200 MB more while it is converted
FORMATS = ("TIFF", "PNG", "JPEG")
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


def read(path):
    """The pixels of an image file as a uint8 array (height, width, 3), as a viewer shows them on white.

    Raises `UserError` for a file that is missing, damaged or no image.
    """
    from PIL import Image, ImageOps  # not needed where the features are cached

    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # the error says it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of large images
            # Pillow reads many more formats, and one of them by starting another program (EPS by Ghostscript).
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"it has {image.width}x{image.height} pixels")
                image.load()
                image = ImageOps.exif_transpose(image)  # a phone notes how it was held
                if image.has_transparency_data:
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
                return _to_rgb(image)
    except FileNotFoundError:
        raise UserError(f"there is no image {path}; name one that is there") from None
    except Exception as error:  # Pillow raises whatever a damaged file makes it raise
        reason = files.reason_of(error).partition(": ")[0]
        raise UserError(f"{path} cannot be read as an image ({reason}); give a TIFF, PNG or JPEG") from None


def _to_rgb(image):
    """The pixels of a Pillow image as uint8 (height, width, 3)."""
    if image.mode == "F":
        raise ValueError("it holds floats")
    if not image.mode.startswith("I"):
        return np.asarray(image.convert("RGB"))
    grey = (np.asarray(image) // 257).clip(0, 255).astype(np.uint8)  # of 16 bits, which Pillow would cut off at 255
    return np.repeat(grey[:, :, None], 3, axis=2)
