"""The bundled data in place of the three image sets of Question 2: kana, retinas and garments, drawn from a seed.

    arrays = generate("kuzushiji_mnist")  # train_images, train_labels, val_images, ..., as in MedMNIST's files

The bytes are the same on every machine: everything is drawn in whole numbers (lengths in 1/16 pixel, fractions in
1/256), since sines, exponentials and matrix products of floats may differ in the last bit between processors.

A drawing function draws many pictures of one class at once. What makes a set hard (distortion, stray marks, noise,
contrast) never depends on the class.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

SEED = 42
SPLITS = {"train": 10_000, "val": 2_000, "test": 2_000}
SIDE = 28  # pixels
PIXEL = 16  # units of length in a pixel
ONE = 256  # the fraction 1
WHITE = 255
CHUNK = 250  # pictures drawn at once: enough for numpy, few enough for the processor's cache

CENTRE = SIDE * PIXEL // 2
GRID = np.arange(SIDE, dtype=np.int32) * PIXEL + PIXEL // 2  # the pixels' centres, in units


def generate(dataset):
    """The bundled data for `dataset`, a key of `editions.DATASETS`, as a dict of arrays with MedMNIST's keys.

    Returns `train_images`, `train_labels`, `val_images`, ..., all uint8: images (n_images, 28, 28), labels
    (n_images,), or (n_images, 1) for OCTMNIST, as MedMNIST publishes it. Classes are in the order of the edition.
    """
    twin = TWINS[dataset]
    rng = np.random.Generator(np.random.PCG64(SEED))
    arrays = {}
    for split, n_images in SPLITS.items():
        labels = _shuffled_labels(rng, n_images, twin.shares[split])
        images = np.empty((n_images, SIDE, SIDE), dtype=np.uint8)
        for label in range(len(twin.shares[split])):
            indices = np.flatnonzero(labels == label)
            for start in range(0, len(indices), CHUNK):
                chunk = indices[start : start + CHUNK]
                images[chunk] = np.clip(twin.draw(_Dice(rng, len(chunk)), label), 0, WHITE)
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = labels.reshape(twin.label_shape)
    return arrays


def _shuffled_labels(rng, n_images, shares):
    """Labels (n_images,) in random order; class k has `shares[k]` parts of the images."""
    ends = np.cumsum(shares) * n_images // sum(shares)
    labels = np.searchsorted(ends, np.arange(n_images), side="right").astype(np.uint8)
    return labels[np.argsort(rng.integers(0, 1 << 62, size=n_images), kind="stable")]


class _Dice:
    """The random numbers of `n` pictures; `integers` alone, whose stream is the same on every platform."""

    def __init__(self, rng, n):
        self.rng = rng
        self.n = n

    def between(self, low, high, *shape):
        """Whole numbers from `low` to `high`, both included, (n, *shape)."""
        return self.rng.integers(low, high + 1, size=(self.n, *shape), dtype=np.int32)

    def chance(self, percent, *shape):
        """1 in `percent` of 100 cases, else 0, (n, *shape)."""
        return (self.between(0, 99, *shape) < percent).astype(np.int32)

    def grain(self, low, high):
        """Noise of its own in each pixel, (n, 28, 28), triangular; each picture has its amplitude, `low` to `high`."""
        pair = self.rng.integers(0, ONE, size=(2, self.n, SIDE, SIDE), dtype=np.uint8).astype(np.int32)
        return (pair[0] - pair[1]) * self.between(low, high, 1, 1) // ONE

    def clouds(self, cells, low, high):
        """Smooth noise (n, 28, 28): random corners of `cells` x `cells` squares, interpolated; amplitude as `grain`."""
        corners = self.between(-ONE, ONE, cells + 1, cells + 1)
        distance = np.abs(np.arange(SIDE)[:, None] * cells - np.arange(cells + 1) * SIDE)
        weights = np.maximum(SIDE - distance, 0).astype(np.int32)  # (28, cells + 1), in 1/28
        return weights @ corners @ weights.T // SIDE**2 * self.between(low, high, 1, 1) // ONE


def _each(values):
    """A value for each picture, (n,), as (n, 1, 1), to meet every pixel."""
    return values[:, None, None]


class _Frame:
    """A random affine map for each picture, from design units (-50 to 50) to units.

    Args:
        size: least and greatest side of the design, in units.
        squeeze: how far width and height depart from `size`, in 1/256.
        turn, shear: greatest rotation (its sine) and slant, in 1/256.
        shift: greatest displacement, in units.
    """

    def __init__(self, dice, size, squeeze, turn, shear, shift):
        side, sine, slant = dice.between(*size), dice.between(-turn, turn), dice.between(-shear, shear)
        width, height = (side * (ONE + dice.between(-squeeze, squeeze)) // 100 for _ in range(2))
        cosine = ONE - sine * sine // (2 * ONE)
        x_to, y_to = np.stack([width * cosine, width * sine]), np.stack([height * (slant - sine), height * cosine])
        self.matrix = np.stack([x_to, y_to]).transpose(2, 0, 1) // ONE  # (n, 2, 2)
        self.offset = CENTRE + dice.between(-shift, shift, 1, 2)

    def place(self, points):
        """Points (n, m, 2), or (m, 2) for all, from design units to units: (n, m, 2)."""
        return points @ self.matrix // ONE + self.offset

    def place_corners(self, corners):
        """The same for corners (x, y), where x and y are each a number or (n,)."""
        x, y = (np.stack([np.broadcast_to(v, len(self.matrix)) for v in axis], axis=1) for axis in zip(*corners))
        return self.place(np.stack([x, y], axis=2).astype(np.int32))


def _curve(points, steps):
    """A smooth curve (Catmull and Rom) through points (n, m, 2), `steps` to a piece: (n, (m - 1) * steps + 1, 2)."""
    n, m, _ = points.shape
    padded = np.concatenate([points[:, :1], points, points[:, -1:]], axis=1)
    neighbours = np.stack([padded[:, i : i + m - 1] for i in range(4)], axis=2)  # (n, m - 1, 4, 2)
    t, whole = np.arange(steps, dtype=np.int32), steps**3
    weights = [  # of the four neighbours, in 1 / (2 steps^3), at t / steps of the way between the middle two
        -t * steps**2 + 2 * t**2 * steps - t**3,
        2 * whole - 5 * t**2 * steps + 3 * t**3,
        t * steps**2 + 4 * t**2 * steps - 3 * t**3,
        -(t**2) * steps + t**3,
    ]
    pieces = np.stack(weights, axis=1) @ neighbours // (2 * whole)  # (n, m - 1, steps, 2)
    return np.concatenate([pieces.reshape(n, -1, 2), points[:, -1:]], axis=1)


EDGE = 320  # half the width of a stroke's soft edge, in d^2 - r^2
ABSENT = -(1 << 20)  # a squared radius that leaves no mark


def _stroke_cover(points, radii):
    """How much of each pixel discs at `points` (n, m, 2) of `radii` (n, m) cover, 0 to 255; radius 0 leaves no mark."""
    dx2, dy2 = ((GRID - points[:, :, axis, None]) ** 2 for axis in range(2))  # (n, m, 28)
    dx2 = dx2 - np.where(radii > 0, radii * radii, ABSENT)[:, :, None]
    power = np.full((len(points), SIDE, SIDE), EDGE, dtype=np.int32)  # the least d^2 - r^2 so far
    for i in range(points.shape[1]):
        np.minimum(power, dy2[:, i, :, None] + dx2[:, i, None, :], out=power)
    return np.minimum((EDGE - power) * WHITE // (2 * EDGE), WHITE)


SUBPIXELS = 2  # a polygon is filled on a grid this much finer


def _polygon_cover(vertices):
    """How much of each pixel lies inside polygons (n, n_vertices, 2), by the even-odd rule: 0 to 255, (n, 28, 28)."""
    step = PIXEL // SUBPIXELS
    fine = np.arange(SIDE * SUBPIXELS, dtype=np.int32) * step + step // 2
    inside = np.zeros((len(vertices), len(fine), len(fine)), dtype=bool)
    corners = vertices.transpose(1, 2, 0)[..., None]  # (n_vertices, 2, n, 1)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        spans = (y0 <= fine) != (y1 <= fine)  # (n, rows)
        crossing = x0 + (fine - y0) * (x1 - x0) // np.where(y1 == y0, 1, y1 - y0)
        inside ^= spans[:, :, None] & (fine > crossing[:, :, None])
    cells = inside.reshape(-1, SIDE, SUBPIXELS, SIDE, SUBPIXELS)
    return cells.sum(axis=(2, 4), dtype=np.int32) * WHITE // SUBPIXELS**2


def _ellipse_cover(x, y, radius_x, radius_y):
    """Soft ellipses, arguments (n,): 0 to 255, (n, 28, 28)."""
    x2 = (GRID - x[:, None]) ** 2 * ONE // (radius_x * radius_x)[:, None]
    y2 = (GRID - y[:, None]) ** 2 * ONE // (radius_y * radius_y)[:, None]
    return np.clip((ONE - x2[:, None, :] - y2[:, :, None]) * 2, 0, WHITE)


def _paint(canvas, cover, shade):
    """Lay `shade`, a number or (n,), over `canvas` where `cover` says so, in place."""
    canvas += (np.reshape(shade, (-1, 1, 1)) - canvas) * cover // WHITE


# The strokes of the ten kana: points that each passes through, on a square of 100, in the order of the classes.
KANA = (
    (  # お
        ((12, 31), (34, 29), (58, 25)),
        ((35, 6), (36, 34), (35, 62), (31, 82), (17, 84), (14, 70), (32, 56), (60, 48), (82, 58), (80, 78), (56, 90)),
        ((68, 18), (86, 32)),
    ),
    (  # き
        ((20, 27), (48, 24), (76, 17)),
        ((16, 46), (50, 42), (84, 34)),
        ((40, 5), (54, 34), (72, 64)),
        ((24, 64), (28, 80), (48, 91), (74, 86)),
    ),
    (  # す
        ((8, 27), (48, 25), (92, 22)),
        ((56, 5), (57, 30), (57, 52), (46, 63), (36, 53), (46, 43), (58, 55), (55, 76), (38, 95)),
    ),
    (  # つ
        ((6, 38), (30, 28), (58, 22), (84, 32), (90, 52), (74, 72), (40, 84)),
    ),
    (  # な
        ((10, 26), (30, 25), (52, 20)),
        ((34, 6), (27, 32), (11, 58)),
        ((66, 22), (88, 37)),
        ((62, 44), (64, 66), (60, 86), (44, 92), (34, 82), (48, 73), (68, 80), (88, 92)),
    ),
    (  # は
        ((16, 10), (11, 36), (12, 64), (17, 88), (25, 72)),
        ((36, 31), (62, 31), (90, 27)),
        ((65, 8), (66, 36), (66, 66), (60, 86), (46, 90), (38, 80), (50, 71), (70, 77), (90, 90)),
    ),
    (  # ま
        ((18, 25), (50, 24), (82, 21)),
        ((20, 46), (50, 45), (80, 42)),
        ((53, 5), (54, 34), (54, 66), (48, 88), (32, 92), (22, 82), (36, 72), (58, 77), (82, 90)),
    ),
    (  # や
        ((6, 48), (34, 36), (62, 27), (86, 32), (88, 50), (72, 60), (58, 55)),
        ((50, 6), (62, 21)),
        ((24, 18), (38, 54), (54, 95)),
    ),
    (  # れ
        ((29, 6), (30, 48), (29, 95)),
        ((8, 32), (36, 27), (22, 56), (8, 76), (34, 46), (58, 26), (68, 38), (64, 66), (70, 86), (94, 72)),
    ),
    (  # を
        ((18, 22), (48, 21), (78, 16)),
        ((48, 4), (36, 32), (16, 58), (38, 44), (54, 48), (55, 70)),
        ((88, 38), (60, 52), (36, 72), (44, 90), (84, 90)),
    ),
)

STROKE_STEPS, LINK_STEPS, STRAY_STEPS = 48, 16, 6  # discs along a stroke, a link, a piece of a stray stroke
SHORT_STROKE = 3  # points; only a stroke so short is ever left out


def _draw_kana(dice, label):
    """A kana, white on black: a brush that slants, trembles, runs strokes together and sometimes leaves one out."""
    frame = _Frame(dice, size=(280, 400), squeeze=50, turn=60, shear=90, shift=36)
    radius = dice.between(12, 30, 1)
    curves, radii = [], []
    for stroke in KANA[label]:
        tremble = dice.between(-8, 8, 1, 2) + dice.between(-7, 7, len(stroke), 2)
        points = frame.place(np.array(stroke, dtype=np.int32) - 50 + tremble)
        curve = _curve(points, STROKE_STEPS // (len(stroke) - 1))
        if curves:  # the brush may stay on the paper between two strokes
            curves.append(_curve(np.stack([curves[-1][:, -1], points[:, 0]], axis=1), LINK_STEPS))
            radii.append(np.repeat(radius * dice.chance(40, 1) * 2 // 3, LINK_STEPS + 1, axis=1))
        length = curve.shape[1]
        taper = ONE - np.arange(length, dtype=np.int32) * dice.between(0, 110, 1) // length
        kept = dice.chance(92 if len(stroke) <= SHORT_STROKE else 100, 1)
        curves.append(curve)
        radii.append(radius * taper // ONE * kept)
    ink = _stroke_cover(np.concatenate(curves, axis=1), np.concatenate(radii, axis=1))
    ink = np.maximum(ink, _stray_ink(dice)) * dice.between(130, ONE, 1, 1) // ONE
    ink = ink * (ONE - np.maximum(dice.clouds(7, 170, 170), 0)) // ONE  # the brush runs dry
    return ink + dice.grain(30, 110)


def _stray_ink(dice):
    """What shows of the neighbouring characters: up to two short strokes from the left or upper border, (n, 28, 28)."""
    cover = np.zeros((dice.n, SIDE, SIDE), dtype=np.int32)
    for _ in range(2):
        on_border = dice.between(0, 1, 1)
        start = dice.between(0, 2 * CENTRE, 1, 2) * np.stack([on_border, 1 - on_border], axis=2)
        start += 2 * CENTRE * dice.chance(50, 1, 1) * np.stack([1 - on_border, on_border], axis=2)
        walk = np.cumsum(dice.between(-70, 70, 3, 2), axis=1, dtype=np.int32)
        curve = _curve(np.concatenate([start, start + walk], axis=1), STRAY_STEPS)
        radius = dice.between(12, 28, 1) * dice.chance(50, 1)
        cover = np.maximum(cover, _stroke_cover(curve, np.broadcast_to(radius, curve.shape[:2])))
    return cover


def _table(knots):
    """The polyline through `knots`, ((x, value), ...), at every whole x."""
    steps = [np.arange(x1 - x0, dtype=np.int32) * (v1 - v0) // (x1 - x0) + v0 for (x0, v0), (x1, v1) in pairwise(knots)]
    return np.concatenate([*steps, np.array([knots[-1][1]], dtype=np.int32)])


COLUMNS = GRID - CENTRE  # x of the pixel columns, from the middle
DEEPEST = 64  # the pigment epithelium, in steps below the retina's surface
LAYERS = _table(
    ((0, 120), (6, 175), (14, 150), (24, 105), (30, 85), (36, 120), (42, 90), (54, 65), (60, 110), (DEEPEST, 190))
)  # brightness of the retina, by depth
VITREOUS, EPITHELIUM, CHOROID = 24, 235, 120


class _Ellipse(NamedTuple):
    """A spot in the retina, each value (n,): x, depth (0 surface, 256 epithelium), radii, shade, 1 if it is there."""

    x: np.ndarray
    depth: np.ndarray
    radius_x: np.ndarray
    radius_y: np.ndarray
    shade: np.ndarray
    present: np.ndarray


class _Finding(NamedTuple):
    """What a disease changes: how far it lifts the epithelium and with what below, how far the retina swells, spots."""

    lift: np.ndarray | int = 0
    deposit: np.ndarray | int = 0
    swelling: np.ndarray | int = 0
    spots: tuple[_Ellipse, ...] = ()


def _bump(centre, half_width, height):
    """A smooth hill h (1 - t^2)^2 over the columns, t = (x - centre) / half_width: arguments (n,), result (n, 28)."""
    t2 = (COLUMNS - centre[:, None]) ** 2 * ONE // (half_width * half_width)[:, None]
    rest = np.maximum(ONE - t2, 0)
    return height[:, None] * (rest * rest // ONE) // ONE


def _random_bump(dice, centre, half_width, height):
    """A `_bump` with its arguments drawn from ranges (low, high); the middle lies up to `centre` off the picture's."""
    return _bump(dice.between(-centre, centre), dice.between(*half_width), dice.between(*height))


def _random_spot(dice, percent, depth, radius_x, radius_y, shade):
    """An `_Ellipse` in `percent` of 100 pictures, with its values drawn from ranges (low, high)."""
    x = dice.between(60, 2 * CENTRE - 60)
    return _Ellipse(x, *(dice.between(*limits) for limits in (depth, radius_x, radius_y, shade)), dice.chance(percent))


def _cnv(dice):
    """Choroidal neovascularisation: new vessels push an uneven, bright mass through the epithelium; fluid beside it."""
    centre = dice.between(-110, 110)
    lift = _bump(centre, dice.between(75, 170), dice.between(48, 100))
    for _ in range(2):
        lift += _bump(centre + dice.between(-70, 70), dice.between(30, 60), dice.between(-15, 30))
    fluid = _random_spot(dice, 75, (190, 240), (45, 105), (12, 27), (15, 50))
    mass = _random_spot(dice, 75, (200, 256), (35, 85), (16, 32), (160, 230))._replace(x=centre + CENTRE)
    return _Finding(lift, deposit=dice.between(135, 220), spots=(fluid, mass))


def _dme(dice):
    """Diabetic macular edema: the retina swells and dark cysts open in it."""
    swelling = _random_bump(dice, 120, (120, 260), (22, 85))
    cysts = tuple(_random_spot(dice, percent, (70, 200), (16, 48), (16, 37), (10, 50)) for percent in (100, 90, 65, 45))
    return _Finding(swelling=swelling, spots=cysts)


def _drusen(dice):
    """Drusen: small grey deposits lift the epithelium into bumps."""
    lift = sum(_random_bump(dice, 190, (23, 46), (19, 48)) for _ in range(5))
    return _Finding(lift, deposit=dice.between(70, 150))


def _normal(dice):
    """A healthy retina: smooth layers."""
    return _Finding()


FINDINGS = (_cnv, _dme, _drusen, _normal)  # in the order of the classes


def _draw_retina(dice, label):
    """A section through the retina: dark vitreous, layers, bright pigment epithelium, fading choroid; and a finding."""
    tilt, bow = dice.between(-60, 60, 1), dice.between(-40, 60, 1)
    ground = CENTRE + 70 + dice.between(-50, 50, 1) + COLUMNS * tilt // ONE - COLUMNS**2 // CENTRE * bow // ONE
    thickness = dice.between(95, 150, 1) + _random_bump(dice, 200, (120, 300), (-25, 25))
    pit = _random_bump(dice, 90, (60, 120), (20, 75)) * dice.chance(70, 1)
    finding = FINDINGS[label](dice)
    surface = (ground - thickness + pit - finding.swelling)[:, None, :]  # (n, 1, 28): a height for each column
    epithelium, ground = (ground - finding.lift)[:, None, :], ground[:, None, :]

    y = GRID[:, None]
    extent = np.maximum(epithelium - surface, PIXEL)
    canvas = LAYERS[np.clip((y - surface) * DEEPEST // extent, 0, DEEPEST)]
    choroid = np.maximum(CHOROID - (y - ground) // 2, 15) + dice.clouds(9, 25, 25)
    below = np.where(y > ground, choroid, np.reshape(finding.deposit, (-1, 1, 1)))
    canvas = np.where(y > epithelium, below, canvas)
    for spot in finding.spots:
        column = _each(spot.x // PIXEL)
        top, bottom = (np.take_along_axis(line, column, axis=2)[:, 0, 0] for line in (surface, epithelium))
        middle = top + (bottom - top) * spot.depth // ONE
        _paint(canvas, _ellipse_cover(spot.x, middle, spot.radius_x, spot.radius_y) * _each(spot.present), spot.shade)
    _paint(canvas, np.clip((40 - np.abs(epithelium - y)) * 10, 0, WHITE), EPITHELIUM)
    canvas = np.where(y < surface, VITREOUS, canvas)
    canvas = canvas * (ONE + dice.grain(65, 140)) // ONE * dice.between(80, 175, 1, 1) // ONE  # speckle, light
    return canvas + dice.grain(16, 16)


class _Garment:
    """Garments in painting: shapes in design units, laid over each other on a black canvas (n, 28, 28).

    A coordinate, a shade or a radius is a number, or (n,) with one for each picture. `inside=True` paints only on
    what is there already, `percent` in so many of 100 pictures.
    """

    def __init__(self, dice):
        self.between, self.chance = dice.between, dice.chance
        self.frame = _Frame(dice, size=(340, 450), squeeze=30, turn=20, shear=25, shift=28)
        self.canvas = np.zeros((dice.n, SIDE, SIDE), dtype=np.int32)
        self.cloth = self.between(90, 240)

    def tone(self, contrast):
        """Shades (n,) that differ from the cloth's by at most `contrast`."""
        return np.clip(self.cloth + self.between(-contrast, contrast), 0, WHITE)

    def polygon(self, shade, *corners, mirrored=False, inside=False, percent=100):
        """Fill the polygon through `corners`; `mirrored` goes back along their mirror images, x to -x."""
        if mirrored:
            corners += tuple((-x, y) for x, y in reversed(corners))
        self._lay(_polygon_cover(self.frame.place_corners(corners)), shade, inside, percent)

    def line(self, shade, radius, *points, inside=False, percent=100):
        """Draw the smooth stroke of `radius` units through `points`."""
        curve = _curve(self.frame.place_corners(points), SEAM_STEPS // (len(points) - 1))
        radii = np.broadcast_to(np.reshape(radius, (-1, 1)), curve.shape[:2])
        self._lay(_stroke_cover(curve, radii), shade, inside, percent)

    def _lay(self, cover, shade, inside, percent):
        if inside:
            cover = cover * (self.canvas > 0)
        _paint(self.canvas, cover * _each(self.chance(percent)), shade)


SEAM_STEPS = 24  # discs along a line
STITCH = 8  # radius of the finest line, in units


def _top(garment, reach, hem, flare, chest=(20, 26)):
    """Paint body and sleeves; `reach` is how far the sleeves come down (0: none). Returns half the neck's width."""
    chest, neck, cuff = garment.between(*chest), garment.between(8, 13), garment.between(7, 11)
    shoulder = chest + garment.between(2, 7)
    wrist = shoulder + 2 + reach * garment.between(30, 130) // ONE
    sleeve = (shoulder - 6, -38), (shoulder + 1, -35), (wrist, reach - 35), (wrist - cuff, reach - 33), (chest - 2, -12)
    shade = garment.tone(20)
    for side in (-1, 1):
        garment.polygon(shade, *((side * x, np.where(reach > 0, y, -38)) for x, y in sleeve))
    waist = chest - garment.between(0, 4)
    body = (neck, -43), (shoulder, -37), (chest, -14), (waist, 4), (chest + flare, hem)
    garment.polygon(garment.cloth, *body, mirrored=True)
    return neck


def _t_shirt(garment):
    neck = _top(garment, garment.between(14, 36), garment.between(32, 44), garment.between(-2, 3))
    garment.polygon(0, (neck, -45), (neck // 2, garment.between(-39, -31)), mirrored=True)


def _trouser(garment):
    waist, ankle, gap = garment.between(10, 18), garment.between(12, 22), garment.between(1, 6)
    top, crotch, bottom = garment.between(-46, -38), garment.between(-22, -8), garment.between(34, 46)
    inseam = (np.minimum(gap, ankle - 5), bottom), (1, crotch)
    garment.polygon(garment.cloth, (waist, top), (waist + 3, -18), (ankle, bottom), *inseam, mirrored=True)
    garment.polygon(garment.tone(50), (waist, top), (waist + 1, top + 6), mirrored=True)


def _pullover(garment):
    hem = garment.between(30, 44)
    neck = _top(garment, garment.between(56, 76), hem, garment.between(-3, 3))
    trim = garment.tone(50)
    garment.polygon(trim, (neck + 1, -45), (neck // 2, garment.between(-38, -32)), mirrored=True)
    garment.polygon(0, (neck - 2, -46), (neck // 2, -40), mirrored=True)
    garment.polygon(trim, (22, hem - 6), (22, hem), mirrored=True, inside=True)


def _dress(garment):
    reach = garment.between(10, 66) * garment.chance(50)
    neck = _top(garment, reach, garment.between(38, 48), garment.between(-2, 14), chest=(9, 15))
    garment.polygon(0, (neck - 2, -45), (neck // 3, garment.between(-38, -26)), mirrored=True)
    garment.polygon(garment.tone(60), (16, -4), (16, 0), mirrored=True, inside=True)


def _coat(garment):
    hem, lapel = garment.between(36, 47), garment.between(-28, -8)
    neck = _top(garment, garment.between(60, 80), hem, garment.between(-1, 6))
    seam = np.maximum(garment.cloth // 3 + garment.between(-40, 40), 0)
    garment.polygon(seam, (neck - 1, -45), (0, lapel), mirrored=True)
    garment.line(seam, garment.between(7, 12), (0, lapel), (0, hem))
    for side in (-1, 1):
        garment.line(seam, STITCH, (side * 9, 12), (side * 18, 9), percent=60)


def _sandal(garment):
    heel, radius = garment.between(-10, 14), garment.between(14, 30)
    ankle = garment.between(-30, -8) - heel // 2
    footbed = (-46, 20), (-20, 18), (10, 14 - heel // 2), (44, 12 - heel)
    garment.polygon(garment.tone(40), *footbed, (44, 26), (30, 26), (14, 22), (-20, 26), (-44, 26))
    for start, end in ((-38, -18), (-22, -4), (-8, 10), (12, 22)):
        strap = (start, 18), (start + 5, garment.between(0, 8)), (end, end * (ankle + 8) // 40 - 6)
        garment.line(garment.cloth, radius, *strap, percent=70)
    garment.line(garment.cloth, radius, (-22, -4), (12, ankle // 2 + 3), (28, ankle), percent=50)
    garment.line(garment.cloth, radius, (18, ankle + 5), (30, ankle), (42, ankle + 2), (43, 12 - heel))


def _shirt(garment):
    hem = garment.between(32, 46)
    reach = np.where(garment.chance(75), garment.between(54, 78), garment.between(16, 40))
    neck = _top(garment, reach, hem, garment.between(-2, 4))
    trim = garment.tone(60)
    garment.polygon(0, (neck - 1, -45), (0, garment.between(-38, -30)), mirrored=True)
    for side in (-1, 1):
        garment.polygon(trim, (side * (neck + 1), -46), (side * (neck + 4), -36), (side * 3, -28), (0, -34))
    garment.line(trim, STITCH, (0, -30), (0, hem))


def _shoe(garment, top, shaft):
    """Paint a closed shoe in profile, toe to the left, its opening `shaft` wide at height `top`.

    Returns the x of the opening's front, the height of the instep and that of the floor.
    """
    toe, instep, floor = garment.between(0, 8), garment.between(-8, 0), garment.between(20, 26)
    front = 42 - shaft
    cap = (-46, floor), (-45, toe + 10), (-40, toe + 3), (-30, toe)
    tongue = (-14, instep), (front - 14, instep + (top - instep) // 5), (front - 3, top - 3)
    collar = (front + shaft // 3, top + 3), (38, top + 2), (42, top - 3), (41, top // 3), (45, floor)
    garment.polygon(garment.cloth, *cap, *tongue, *collar)
    heel = floor + garment.between(3, 7)
    garment.polygon(garment.tone(110), (-47, floor - 3), (46, floor - 3), (46, heel), (-45, heel - 1))
    return front, instep, floor


def _sneaker(garment):
    top = garment.between(-28, -8)
    front, instep, _ = _shoe(garment, top, garment.between(24, 34))
    trim = garment.tone(90)
    for step in (0, 9, 18):
        x = front - 24 + step
        garment.line(trim, STITCH, (x, instep - 2 + top * step // 60), (x + 10, instep + 7), inside=True)


def _bag(garment):
    top, bottom, grip = garment.between(-24, 2), garment.between(26, 42), garment.between(10, 22)
    upper, lower = garment.between(24, 44), garment.between(30, 46)
    arch = (-grip, top), (3 - grip, top - 20), (0, garment.between(-48, -36)), (grip - 3, top - 20), (grip, top)
    garment.line(garment.tone(60), garment.between(12, 24), *arch, percent=85)
    garment.polygon(garment.cloth, (upper, top), (lower, bottom), mirrored=True)
    flap = top + (bottom - top) * garment.between(60, 150) // ONE
    lid = (upper, top), (upper, flap - 8), (3, flap)
    garment.polygon(garment.tone(50), *lid, mirrored=True, inside=True, percent=60)


def _ankle_boot(garment):
    top = garment.between(-46, -22)
    front, _, floor = _shoe(garment, top, garment.between(28, 40))
    heel = floor + garment.between(2, 14)
    garment.polygon(garment.tone(60), (18, floor), (46, floor), (45, heel), (20, floor + 8))
    garment.line(garment.tone(60), garment.between(6, 14), (front, top + 4), (42, top + 3))


GARMENTS = (_t_shirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _ankle_boot)


def _draw_garment(dice, label):
    """A garment, grey on black, with stripes, folds and a light of its own."""
    garment = _Garment(dice)
    GARMENTS[label](garment)
    canvas = garment.canvas * (ONE - _stripes(dice)) // ONE
    return canvas * (ONE + dice.clouds(5, 20, 120)) // ONE + dice.grain(10, 60)


def _stripes(dice):
    """Stripes in any direction and width on a third of the garments: how much darker each pixel gets, in 1/256."""
    across, down, phase = dice.between(-2, 2, 1, 1), dice.between(-2, 2, 1, 1), dice.between(0, ONE, 1, 1)
    along = (across * GRID + down * GRID[:, None] + phase) // PIXEL
    return along // dice.between(2, 5, 1, 1) % 2 * dice.between(20, 130, 1, 1) * dice.chance(35, 1, 1)


class _Twin(NamedTuple):
    """One set: its drawing function, the share of each class in each split, the shape of its labels."""

    draw: Callable[[_Dice, int], np.ndarray]
    shares: dict[str, tuple[int, ...]]
    label_shape: tuple[int, ...]


BALANCED = dict.fromkeys(SPLITS, (1,) * 10)
# Percent of CNV, DME, drusen and normal, about as in the published training set; the published test set is balanced.
RETINAS = {"train": (34, 10, 8, 48), "val": (34, 10, 8, 48), "test": (25, 25, 25, 25)}
TWINS = {
    "kuzushiji_mnist": _Twin(_draw_kana, BALANCED, (-1,)),
    "octmnist": _Twin(_draw_retina, RETINAS, (-1, 1)),
    "fashion_mnist": _Twin(_draw_garment, BALANCED, (-1,)),
}
