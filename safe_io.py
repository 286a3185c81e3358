"""Reading files that may be damaged or hostile: within limits of memory, without unpickling, and without leaving a folder.

What is wrong with a file comes as an `OSError` or as one of `DAMAGED`; the callers turn these into a `UserError` that says what to
do next. numpy and torch are imported where they are used.
"""

import errno
import lzma
import math
import os
import pickletools
import re
import stat
import struct
import sys
import tarfile
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

MAX_UNPACKED = 2**30  # bytes; the course's Kuzushiji-MNIST.npz, 70,000 x 784 float64, has 440 MB

# What gzip, tarfile, zipfile and numpy (which parses an array's header as Python) raise for a file that is damaged,
# hostile or something else, besides `OSError`.
DAMAGED = (
    EOFError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

# What the pickle of a state dict needs of Python: tensors, their storages, and the dict that torch uses.
STORAGES = "BFloat16|Bool|Byte|Char|Double|Float|Half|Int|Long|Short"
HARMLESS = re.compile(rf"collections OrderedDict|torch._utils _rebuild_(tensor_v2|parameter)|torch ({STORAGES})Storage")
CHECKPOINT_MEMBERS = re.compile(
    r"[^/]+/(data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+)"
)
PROTOCOL = 2  # torch's own
N_LEGACY_PICKLES = 5  # magic number, version, system, the state, the keys of the storages that follow
MAX_VALUES = 5_000_000  # entries and characters of a checkpoint besides its tensors, each counted where it stands
MAX_INT = 2**64


def require_regular(path):
    """Raise `OSError` unless `path` is a plain file, or a link to one: a pipe never ends, and a device neither."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if code == errno.EISDIR else "Not a regular file", str(path))


def read_bytes(path):
    """The content of a plain file; raises `OSError`."""
    require_regular(path)
    return Path(path).read_bytes()


def leaves_folder(name):
    """Whether a file's name in an archive leads out of the folder where the archive is unpacked."""
    path = PureWindowsPath(name)  # which reads / and \\ and drives
    return bool(path.anchor) or ".." in path.parts


def check_zip(archive, allowed=0):
    """Raise `ValueError` for a `zipfile.ZipFile` that no data set and no numpy writes: it is damaged or hostile.

    It has a link, a file outside of its folder, more than `MAX_UNPACKED` bytes (or than `allowed`) when it is unpacked, or is
    packed by a method other than deflate: zipfile unpacks those without a limit.
    """
    limit = max(MAX_UNPACKED, allowed)
    for member in archive.infolist():
        if not member.filename:
            raise ValueError("it has a file without a name")
        if leaves_folder(member.filename):
            raise ValueError(f"it has a file {member.filename!r} outside of its folder")
        if stat.S_ISLNK(member.external_attr >> 16):  # the upper half is the Unix mode
            raise ValueError(f"it has a link {member.filename!r}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename!r} is neither stored nor deflated")
    if sum(member.file_size for member in archive.infolist()) > limit:
        raise ValueError(f"it unpacks to more than {limit:,} bytes")


def read_arrays(path):
    """The arrays of an .npz file, a dict by name; nothing is unpickled.

    They may have `MAX_UNPACKED` bytes together, or as many as the file: a small file cannot fill the memory, whatever its
    headers claim. Raises `OSError` or one of `DAMAGED` for a file that numpy did not write, or that holds objects.
    """
    from numpy.lib import format as npy

    require_regular(path)
    arrays = {}
    with zipfile.ZipFile(path) as archive, warnings.catch_warnings(action="ignore"):  # numpy warns before it raises
        check_zip(archive, os.path.getsize(path))
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                raise ValueError(f"it has {member.filename!r}, which is no array")
            with archive.open(member) as file:
                version = npy.read_magic(file)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"{member.filename} has version {version}")
                read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read_header(file)
                n_values, n_bytes = math.prod(shape), member.file_size - file.tell()
            if dtype.hasobject:
                raise ValueError(f"{member.filename} holds objects, which would have to be unpickled")
            # A type without bytes, such as <U0, claims any number of values with none.
            if min(shape, default=0) < 0 or n_values * dtype.itemsize != n_bytes or n_values > member.file_size:
                raise ValueError(f"{member.filename} has {n_bytes:,} bytes, not those of shape {shape}")
            with archive.open(member) as file:
                array = npy.read_array(file, allow_pickle=False)
            if dtype.kind == "U" and n_bytes and array.reshape(-1).view(f"{dtype.byteorder}u4").max() > sys.maxunicode:
                raise ValueError(f"{member.filename} holds characters that do not exist")
            arrays[member.filename.removesuffix(".npy")] = array
    return arrays


def read_state(path, map_location="cpu"):
    """What `torch.save` wrote of tensors and plain values, in its present format or the one before.

    Only what a state dict consists of is unpickled (`weights_only`), and only from a file whose pickle names nothing else, whose
    members are not packed and have the right checksums. Raises whatever a damaged file makes torch raise, and `ValueError` for
    what `check_values` refuses.
    """
    import torch

    require_regular(path)
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # as torch tells
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            check_checkpoint(archive, os.path.getsize(path))
    else:
        with open(path, "rb") as file:
            for _ in range(N_LEGACY_PICKLES):
                check_pickle(file)
    state = torch.load(path, map_location=map_location, weights_only=True)
    check_values(state)
    return state


def check_checkpoint(archive, size):
    """Raise `ValueError` unless a zip archive of `size` bytes is a whole checkpoint of torch with a harmless pickle."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(set(names)) < len(names) or not all(map(CHECKPOINT_MEMBERS.fullmatch, names)):
        raise ValueError("its members are not those of a checkpoint")
    # torch would unpack them without a limit; several may not share bytes either.
    if (
        any(member.compress_type != zipfile.ZIP_STORED for member in members)
        or sum(m.file_size for m in members) > size
    ):
        raise ValueError("its members are packed")
    damaged = archive.testzip()  # torch does not compare the checksums
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    for name in names:
        if name.endswith(".pkl"):
            with archive.open(name) as file:
                check_pickle(file)


def check_pickle(file):
    """Read one pickle without running it; raise `ValueError` if it names anything but what a state dict consists of.

    `weights_only` allows more, such as `bytearray`, of which nine bytes ask for any amount of memory.
    """
    for n_opcodes, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if n_opcodes > MAX_VALUES:
            raise ValueError(f"its pickle has more than {MAX_VALUES:,} instructions")
        if (opcode.name == "PROTO") != (n_opcodes == 0) or (opcode.name == "PROTO" and argument != PROTOCOL):
            raise ValueError(f"its pickle is not of protocol {PROTOCOL}")
        if opcode.name in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            raise ValueError(f"its pickle has {opcode.name}")
        if opcode.name == "GLOBAL" and not HARMLESS.fullmatch(argument):
            raise ValueError(f"its pickle names {argument}")


def check_values(value):
    """Raise `ValueError` unless a value consists of dicts, lists, tuples, plain values and tensors that have their own bytes.

    A pickle of some hundred bytes can hold the same list a million times, or a tensor of a million million equal numbers; both are
    small until somebody writes, copies or compares them.
    """
    if _size(value, {}) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES:,} values")


def _size(value, known):
    """Entries and characters of a value when it is written out; `known` has those of the containers by `id`."""
    if isinstance(value, dict | list | tuple):
        if id(value) not in known:
            known[id(value)] = math.inf  # of one that contains itself
            parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            known[id(value)] = 1 + sum(_size(part, known) for part in parts)
        return known[id(value)]
    if isinstance(value, str | bytes):
        return 1 + len(value)
    if hasattr(value, "untyped_storage"):  # a tensor
        _require_own_bytes(value)
    elif not (value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) <= MAX_INT)):
        raise ValueError(f"it has a {type(value).__name__}")
    return 1


def _require_own_bytes(tensor):
    """Raise `ValueError` for a tensor whose numbers are not all in the file: an expanded, sparse, quantised or meta one."""
    layout, device = str(tensor.layout), tensor.device.type
    if layout != "torch.strided" or device == "meta" or tensor.is_quantized:
        raise ValueError(f"it has a tensor of layout {layout} on {device}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError("it has a tensor that is larger than its bytes")


def has_form(value, form):
    """Whether a value has a form: a type; `[str]`, a list of str; `(str, int)`, a list of just these; `{str: int}`, a dict."""
    if isinstance(form, tuple):
        return isinstance(value, list) and len(value) == len(form) and all(map(has_form, value, form))
    if isinstance(form, list):
        return isinstance(value, list) and all(has_form(inner, form[0]) for inner in value)
    if isinstance(form, dict):
        ((key_form, inner_form),) = form.items()
        return isinstance(value, dict) and all(
            has_form(key, key_form) and has_form(inner, inner_form) for key, inner in value.items()
        )
    return isinstance(value, form)
