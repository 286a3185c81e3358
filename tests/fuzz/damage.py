"""How valid files are damaged: bytes of any file, and the inside of JSON, zip, npz, checkpoints, tar, PNG and text.

Every function takes the `random.Random` that decides.
"""

import bz2
import functools
import gzip
import io
import json
import lzma
import os
import pickle
import re
import struct
import tarfile
import zipfile
import zlib

OUTSIDE = "outside.txt"  # beside the folder of the input; no reader may touch it
EXECUTED = "executed"  # a folder that the hostile code makes there
SIZES = (0, 1, 2, 3, 7, 8, 63, 127, 128, 255, 256, 1024, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**33)
SIZES = (*SIZES, 2**40, 2**62, 2**63 - 1, 2**64 - 1, -1, -2, -(2**31), -(2**63))
NAMES = (
    "../" + OUTSIDE,
    "../../" + OUTSIDE,
    "..\\" + OUTSIDE,
    "/tmp/absolute",
    "C:\\absolute",
    "//host/share",
    "..",
    ".",
    "",
)
NAMES = (
    *NAMES,
    "a/../../" + OUTSIDE,
    "name\nwith a line",
    "name\x1b[2Jescape",
    "a" * 300,
    "nul\0name",
    "-option",
    "~",
    "con",
)
WORDS = (
    "\ud800",
    "\0",
    "\n",
    "\r",
    "\x1b]0;title\x07",
    "\u2028",
    "\x85",
    "é" * 50,
    "a" * 5000,
    "nan",
    "1e999",
    "{}",
    "%s%n",
    "0",
)


def huge(rng):
    """A size that a header may claim, of 2, 4 or 8 bytes in either order."""
    n_bytes = rng.choice((1, 2, 4, 4, 8))
    return (rng.choice(SIZES) % 256**n_bytes).to_bytes(n_bytes, rng.choice(("little", "big")))


def damaged_bytes(rng, content, other=b""):
    """The content after a few changes: bits, bytes, blocks, sizes, a cut, a splice with `other`."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        size = len(content)
        # Headers stand at the start, tables of contents at the end.
        place = rng.choice(
            (rng.randrange(size + 1), rng.randrange(min(size, 64) + 1), size - rng.randrange(min(size, 64) + 1))
        )
        length = rng.choice((1, 2, 4, 16, 100, 1000))
        kind = rng.randrange(9)
        if kind == 0 and place < size:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + length] = rng.randbytes(length)
        elif kind == 2:
            content[place:place] = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length))
        elif kind == 3:
            del content[place : place + length]
        elif kind == 4:
            del content[place:]
        elif kind in (5, 6):
            field = huge(rng)
            content[place : place + len(field)] = field
        elif kind == 7:
            source = other or content
            start = rng.randrange(len(source) + 1)
            content[place : place + rng.choice((0, length))] = source[start : start + rng.choice((length, len(source)))]
        elif kind == 8:
            block = content[place : place + length]
            content[place:place] = block * rng.choice((1, 2, 20))
    return bytes(content)


def damage_file(rng, path, other=b""):
    """Damage the bytes of a file, or put something else in its place."""
    if rng.random() < 0.03:
        path.unlink()
        kind = rng.randrange(6)
        if kind == 0:
            path.mkdir()
        elif kind == 1:
            path.symlink_to(path.name)  # to itself
        elif kind == 2:
            path.symlink_to("/dev/zero")
        elif kind == 3:
            os.mkfifo(path)
        elif kind == 4:
            path.write_bytes(b"")
    else:
        path.write_bytes(damaged_bytes(rng, path.read_bytes(), other))


def damaged_value(rng, value, leaves):
    """A tree of dicts and lists in which one place is changed: another value, a missing, doubled or renamed entry."""
    if isinstance(value, (dict, list, tuple)) and value and rng.random() < 0.85:
        items = dict(value) if isinstance(value, dict) else list(value)
        key = rng.choice(list(items)) if isinstance(items, dict) else rng.randrange(len(items))
        kind = rng.randrange(12)
        if kind == 0:
            del items[key]
        elif kind == 1 and isinstance(items, dict):
            items[rng.choice(NAMES + WORDS)] = items.pop(key)
        elif kind == 1:
            items *= 2
        elif kind == 2:
            other = rng.choice(list(items) if isinstance(items, dict) else range(len(items)))
            items[key] = items[other]
        else:
            items[key] = damaged_value(rng, items[key], leaves)
        return tuple(items) if isinstance(value, tuple) else items
    return rng.choice(leaves)() if rng.random() < 0.7 else rng.choice((None, value, [value], {"": value}, [], {}))


def plain_leaves(rng):
    """What JSON can hold and no reader expects."""
    return (
        lambda: rng.choice(SIZES),
        lambda: rng.choice((True, False, None, 0.5, -0.0, 1e308, float("nan"), float("inf"), 10**400, [], {}, "")),
        lambda: rng.choice(NAMES),
        lambda: rng.choice(WORDS),
        lambda: functools.reduce(lambda inner, _: [inner], range(rng.choice((3, 200))), 0),
    )


def damage_json(rng, path):
    """Damage a JSON file by value, or as bytes, or nest it deeper than any parser likes."""
    kind = rng.random()
    if kind < 0.75:
        value = json.loads(path.read_bytes())
        for _ in range(rng.choice((1, 1, 2, 5))):
            value = damaged_value(rng, value, plain_leaves(rng))
        path.write_text(json.dumps(value), encoding="utf-8")
    elif kind < 0.77:
        depth = rng.choice((100, 1_000, 100_000))
        path.write_text(rng.choice(("[", '{"a":')) * depth, encoding="utf-8")
    elif kind < 0.79:
        path.write_text("9" * rng.choice((100, 10_000)), encoding="utf-8")
    else:
        damage_file(rng, path)


def damage_text(rng, path):
    """Damage a text file by characters and lines, or as bytes."""
    if rng.random() < 0.4:
        damage_file(rng, path)
        return
    lines = path.read_text(encoding="utf-8").split("\n")
    for _ in range(rng.choice((1, 1, 3))):
        i = rng.randrange(len(lines))
        line, place = lines[i], rng.randrange(len(lines[i]) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            lines[i] = line[:place] + rng.choice(WORDS + NAMES) + line[place:]
        elif kind == 1:
            lines[i] = line.replace(rng.choice("\t|abc "), rng.choice(("", "\t", "|", "||", "\r\n", "\x0c")))
        elif kind == 2:
            lines.insert(i, rng.choice(lines))
        elif kind == 3:
            lines[i] = rng.choice(NAMES) + line[line.find("|") if "|" in line else 0 :]
        elif kind == 4:
            lines[i] = line * rng.choice((0, 2, 100))
        elif kind == 5:
            lines = lines[: i + 1]
    errors = rng.choice(("surrogatepass", "replace"))
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1" if errors == "replace" else "utf-8"))
    path.write_bytes("\n".join(lines).encode(encoding, errors))


@functools.cache
def zeros(n_mib):
    """So many MiB of zeros as (raw deflate stream, CRC-32); the stream repeats one block, which costs no time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(n_mib):
        crc = zlib.crc32(bytes(2**20), crc)
    return block * n_mib + b"\x03\x00", crc


def zipped(members):
    """A zip archive of (ZipInfo, content) pairs; the content may be a pair of `zeros`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for info, data in members:
            archive.writestr(info, b"" if isinstance(data, tuple) else data)
            if isinstance(data, tuple):  # what `writestr` wrote is replaced by the stream
                stream, info.CRC = data
                archive.fp.seek(info.header_offset)
                info.compress_type, info.compress_size = zipfile.ZIP_DEFLATED, len(stream)
                info.file_size = stream.count(b"\x00\x00\xff\xff") * 2**20
                archive.fp.write(info.FileHeader(zip64=False) + stream)
                archive.start_dir = archive.fp.tell()
    return content.getvalue()


def damage_zip(rng, path, damaged_member, bomb_mib=2000):
    """Damage a zip archive as bytes, or its members, and put it together again with the right checksums.

    damaged_member: a function (rng, name, content) to the damaged content of a member.
    """
    if rng.random() < 0.35:
        damage_file(rng, path)
        return
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    i = rng.randrange(len(members))
    info, content = members[i]
    kind = rng.randrange(14)
    if kind < 6:
        members[i] = info, damaged_member(rng, info.filename, content)
    elif kind == 6:
        del members[i]
    elif kind == 7:
        members[i] = zipfile.ZipInfo(rng.choice(NAMES[1:]).replace("\0", "") or "x"), content
    elif kind == 8:
        link = zipfile.ZipInfo(rng.choice((info.filename, "link")))
        link.external_attr = (0o120777) << 16
        members.insert(rng.randrange(len(members) + 1), (link, b"../" + OUTSIDE.encode()))
    elif kind == 9:
        info.compress_type = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        members[i] = info, content
    elif kind == 10:
        members.append((zipfile.ZipInfo(info.filename), damaged_member(rng, info.filename, content)))
    elif kind == 11 and rng.random() < 0.1:
        members[i] = zipfile.ZipInfo(info.filename), zeros(bomb_mib)
    elif kind == 12:
        other, other_content = rng.choice(members)
        members[i] = info, other_content
    content = zipped(members)
    if kind == 13:  # the table of contents lies about the size
        place = content.rfind(b"PK\x01\x02", 0, rng.randrange(content.find(b"PK\x01\x02"), len(content)) + 4)
        field = place + rng.choice((8, 10, 16, 20, 24, 38, 42))
        content = content[:field] + struct.pack("<I", rng.choice(SIZES) % 2**32) + content[field + 4 :]
    path.write_bytes(content)


class Payload:
    """What runs if a file is unpickled by Python: it makes a folder."""

    def __reduce__(self):
        return os.mkdir, (os.path.join("..", EXECUTED),)


def damaged_array(rng, name, content):
    """The bytes of an .npy member with another header, or other content."""
    import numpy as np

    kind = rng.randrange(8)
    if kind == 0:
        return damaged_bytes(rng, content)
    if kind == 1:
        file = io.BytesIO()
        np.save(file, np.array([Payload(), 1], dtype=object), allow_pickle=True)
        return file.getvalue()
    header = content[: content.index(b"\n") + 1]
    body = content[len(header) :]
    text = header[10:].decode("latin-1").strip()
    if kind in (2, 3):
        shapes = ["()", "(0,)", "(-1,)", "(-2, -3)", f"({rng.choice(SIZES)},)", f"({rng.choice(SIZES)}, 2)", "(2**70,)"]
        shapes += ["(1, 0, 99999999999)", "(True,)", "(1.0,)", "[2]", "(" * 3000, "(3,) * 9"]
        text = re.sub(r"'shape': \([^)]*\)", "'shape': " + rng.choice(shapes), text)
    elif kind in (4, 5):
        types = [
            "|O",
            "|V0",
            "|S0",
            "<U0",
            "<U999999999",
            "|V2147483647",
            "<M8[s]",
            "<c16",
            ">i8",
            "<f2",
            "|b1",
            "x",
            "",
            "<U1",
        ]
        descr = rng.choice(
            [*map(repr, types), "[('a', '|O')]", "[('a', '<f8', (9999999,))]", "None", "{'a': 1}", "[[[[" * 99]
        )
        text = re.sub(r"'descr': '[^']*'", "'descr': " + descr, text)
    elif kind == 6:
        text = rng.choice(
            ("{}", "__import__('os').mkdir('../executed')", "{'a': 1}" * 50, "9" * 5000, "\\", "'''", text[:-9])
        )
    else:
        body = rng.choice((body[: len(body) // 2], body * 2, b"", rng.randbytes(len(body))))
    text = text.encode("latin-1") + b"\n"
    version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + body


def save_hostile_checkpoint(rng, path, state, legacy=False):
    """Write `state` by `torch.save` after it was changed by value, or with a pickle that no `torch.save` writes."""
    import torch

    kind = rng.random()
    if kind < 0.5:
        leaves = (
            *plain_leaves(rng),
            lambda: torch.zeros(1).expand(10 ** rng.choice((3, 12))),
            lambda: torch.full((2, 3), float("nan")),
            lambda: torch.eye(2).to_sparse(),
            lambda: torch.zeros(2, device="meta"),
            lambda: torch.zeros(
                3, dtype=rng.choice((torch.int64, torch.complex64, torch.bool, torch.bfloat16, torch.uint8))
            ),
            lambda: torch.zeros(rng.choice((0, 1, 624, 5056)), dtype=torch.uint8),
            lambda: torch.nn.Parameter(torch.zeros(2)),
            lambda: laughs(rng),
            lambda: {1, 2},
            lambda: 1 + 2j,
            lambda: b"bytes",
            lambda: bytearray(3),
            lambda: torch.device("cpu"),
            lambda: torch.Size([2]),
        )
        for _ in range(rng.choice((1, 1, 2, 5))):
            state = damaged_value(rng, state, leaves)
        content = io.BytesIO()
        torch.save(state, content, _use_new_zipfile_serialization=not legacy)
        path.write_bytes(content.getvalue())
    elif kind < 0.6 and not legacy:
        with zipfile.ZipFile(path) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
        hostile = rng.choice(hostile_pickles(rng))
        path.write_bytes(zipped([(i, hostile if i.filename.endswith("data.pkl") else data) for i, data in members]))
    elif kind < 0.6:
        path.write_bytes(
            b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {})) + rng.choice(hostile_pickles(rng))
        )
    elif kind < 0.62:
        path.write_bytes(pickle.dumps(Payload(), rng.choice((0, 2, 4))))
    elif legacy:
        damage_file(rng, path)
    else:
        damage_zip(rng, path, lambda rng, _, content: damaged_bytes(rng, content))


def laughs(rng):
    """A small structure that is huge when it is written out."""
    value = [rng.choice((0, "ha"))]
    for _ in range(rng.choice((5, 40))):
        value = [value] * 10
    return value


def hostile_pickles(rng):
    """Pickles that run code, ask for memory, or claim storages that are not there."""
    size = rng.choice(SIZES)
    number = size.to_bytes(9, "little", signed=True)
    long = b"\x8a\x09" + number
    storage = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
        + b"0X\x03\0\0\0cpu"
        + long
    )
    storage += b"tQK\0" + rng.choice((b"K\x04", long)) + b"\x85" + rng.choice((b"K\0", b"K\x01", long)) + b"\x85\x89"
    storage += b"ccollections\nOrderedDict\n)RtR."
    return (
        b"\x80\x02cos\nmkdir\nX\x0b\0\0\0../executed\x85R.",
        b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.",
        b"\x80\x02cbuiltins\nbytearray\n" + long + b"\x85R.",
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + (2**31).to_bytes(5, "little") + b"\x85R.",
        b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x04\0\0\0zlib\x86R.",
        b"\x80\x02" + storage,
        b"\x80\x02}(X\x07\0\0\0weights" + storage[:-1] + b"u.",
        b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
        b"\x80\x02]q\0h\0a.",
        b"\x80\x02}q\0X\x07\0\0\0historyh\0s.",
        b"\x80\x02X" + b"\xff\xff\xff\x7f" + b"a.",
        b"\x80\x02\x8b\xff\xff\xff\x7f1.",
        b"\x80\x02" + b"N" * 1000 + b"(" * 1000 + b".",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x8c\x05mkdir\x93\x8c\x0b../executed\x85R.",
    )


def damage_tar(rng, path):
    """Damage a compressed tar as bytes, or make one of hostile members."""
    if rng.random() < 0.4:
        damage_file(rng, path)
        return
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as tar:
        for _ in range(rng.randrange(1, 5)):
            member = tarfile.TarInfo(
                rng.choice((*NAMES, "set/a.txt", "set/a.txt", "set/sub/b.txt", "set", "n" * 200)).replace("\0", "")
                or "x"
            )
            kinds = (tarfile.REGTYPE,) * 6 + (
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.FIFOTYPE,
                tarfile.CHRTYPE,
                tarfile.DIRTYPE,
            )
            member.type = rng.choice((*kinds, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"?"))
            member.linkname = rng.choice((*NAMES, "a.txt", "/etc/passwd")).replace("\0", "")
            data = rng.randbytes(rng.choice((0, 1, 511, 512, 513, 3000)))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    plain = bytearray(content.getvalue())
    for _ in range(rng.choice((0, 1, 2))):  # a field of a header, and its checksum made right again
        start = rng.randrange(0, len(plain), 512)
        field, length = rng.choice(((124, 12), (156, 1), (345, 155), (482, 13), (257, 8)))
        values = (
            b"77777777777\0",
            b"\x80" + b"\xff" * 11,
            b"-1",
            rng.choice((b"x", b"g", b"L", b"K", b"S", b"1", b"2")),
            rng.randbytes(length),
        )
        plain[start + field : start + field + length] = rng.choice(values)[:length].ljust(length, b"\0")
        block = plain[start : start + 512]
        block[148:156] = b" " * 8
        plain[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    packed = rng.choice((bz2.compress, gzip.compress, lzma.compress, bytes))(bytes(plain))
    path.write_bytes(tar_bomb() if rng.random() < 0.002 else packed)


@functools.cache
def tar_bomb(n_mib=2048):
    """A .tar.gz of 2 MiB whose long name has 2 GiB."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, n_mib * 2**20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(header.tobuf(tarfile.GNU_FORMAT)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + start + zeros(n_mib)[0] + bytes(8)


def damage_png(rng, path):
    """Damage a chunk of a PNG and make its checksum right again."""
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG"):
        damage_file(rng, path)
        return
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    i = rng.randrange(len(chunks))
    kind, data = chunks[i]
    how = rng.randrange(4)
    if how == 0:
        chunks[i] = kind, damaged_bytes(rng, data)
    elif how == 1:
        sides = [
            rng.choice(SIZES) % 2**32 if rng.random() < 0.5 else rng.choice((1, 9, 4000, 13_000, 30_000))
            for _ in range(2)
        ]
        head = struct.pack(
            ">IIBBBBB", *sides, rng.choice((1, 2, 4, 8, 16)), rng.choice((0, 2, 3, 4, 6, 9)), 0, 0, rng.choice((0, 1))
        )
        chunks[0] = b"IHDR", head
    elif how == 2:
        text = rng.choice((b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"IDAT"))
        packed = zlib.compress(bytes(rng.choice((10, 10**6, 10**7))), 9)
        chunks.insert(rng.randrange(1, len(chunks) + 1), (text, b"name\0\0" + packed))
    else:
        del chunks[i]
    body = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    path.write_bytes(content[:8] + b"".join(body))
