"""The bundled captioned images: aerial scenes that this project draws in place of Sydney-Captions and UCM-Captions.

A scene is composed of things that are drawn independently of each other: the land, a road, water, boats on it, planes,
a building, trees. How many there are, where, and in which colour is drawn for each thing alone, so that no other image
shows the same. Each of the five captions names up to three of the things, in varying words, as people do who were asked
for one sentence. `generate` makes the scenes with their captions, `draw` the pixels of one scene, and `write` a folder
in the published layout.

The generator is frozen: its fingerprint stands in a test.
"""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

BOAT_SPOTS = (0.12, 0.24, 0.76, 0.88)  # along a river
N_CAPTIONS = 5
MOST_SAID = 3  # things in a caption
WHERE_SHARE = 0.2  # of the things of a caption, with which it says where they are
# Of each set: the pixels of a side, the images of each split, and the numbers of images that are in the test split.
SETS = {
    "sydney": (500, {"train": 497, "val": 58, "test": 58}, (219, 357, 540)),
    "ucm": (256, {"train": 1680, "val": 210, "test": 210}, ()),
}
PLACES = {
    "upper left": (0.24, 0.24), "upper right": (0.76, 0.24), "lower left": (0.24, 0.76), "lower right": (0.76, 0.76),
}  # fmt: skip
SIDES = ("left", "right", "top", "bottom")
NUMBERS = ("no", "one", "two", "three", "four", "five")
MANY = 24  # trees
LANDS = {
    "grassland": ("green grassland", "a green meadow"),
    "bare land": ("bare land", "brown bare soil"),
    "farmland": ("striped farmland", "ploughed fields"),
    "forest": ("dense forest", "dark woodland"),
    "desert": ("yellow sand", "a sandy desert"),
    "residential": ("a residential area", "a neighbourhood of small houses"),
    "parking": ("a parking lot", "a parking area full of cars"),
    "concrete": ("grey concrete", "an open paved area"),
}
COLORS = {
    "white": (236, 236, 232), "red": (188, 52, 40), "blue": (48, 84, 190), "yellow": (232, 200, 60),
    "black": (36, 36, 40), "orange": (230, 130, 40),
}  # fmt: skip
WATERS = {"blue": (40, 96, 176), "green": (44, 116, 92), "dark": (24, 38, 54)}
ROADS = {"black": (52, 52, 56), "brown": (128, 88, 56), "pale": (206, 202, 194)}
CROWNS = {"green": (50, 120, 44), "yellow": (206, 168, 40), "red": (160, 56, 40)}
LAND_COLORS = {
    "grassland": (98, 142, 66), "bare land": (146, 108, 78), "farmland": (150, 152, 84), "forest": (38, 74, 38),
    "desert": (216, 190, 132), "residential": (112, 128, 96), "parking": (104, 104, 108), "concrete": (168, 168, 164),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What an image shows; `None` or 0 where a thing is not there.

    Attributes:
        seed: of the drawing's details. side: pixels.
        land: key of `LANDS`. road: (course, colour). water: (kind, colour, place).
        boats, planes, trees: (number, colour, place). building: (shape, colour, place).
        captions: five tuples of words.
    """

    seed: str
    side: int
    land: str
    road: tuple | None
    water: tuple | None
    boats: tuple | None
    planes: tuple | None
    building: tuple | None
    trees: tuple | None
    captions: tuple = ()


def generate(name, n_images=None):
    """The scenes of a set: a dict from a file's name to (split, `Scene`).

    n_images: only so many, a tenth of them validation and a tenth test.
    """
    side, sizes, test_numbers = SETS[name]
    n = sum(sizes.values())
    rng = random.Random(f"{name} splits")
    others = [number for number in range(1, n + 1) if number not in test_numbers]
    order = sorted(others, key=lambda number: rng.random())
    n_test = sizes["test"] - len(test_numbers)
    splits = dict.fromkeys(range(1, n + 1), "train") | dict.fromkeys((*order[:n_test], *test_numbers), "test")
    splits |= dict.fromkeys(order[n_test : n_test + sizes["val"]], "val")
    if n_images is not None:
        shares = {"val": max(1, n_images // 10), "test": max(1, n_images // 10)}
        shares["train"] = n_images - sum(shares.values())
        of_split = {split: [number for number in splits if splits[number] == split] for split in shares}
        splits = {number: splits[number] for number in sorted(sum((of_split[s][: shares[s]] for s in shares), []))}
    return {f"{number}.tif": (splits[number], make_scene(f"{name} {number}", side)) for number in splits}


def make_scene(seed, side):
    """Draw the things of a scene, then what its captions say."""
    rng = random.Random(seed)
    places = sorted(PLACES, key=lambda place: rng.random())
    land = pick(rng, list(LANDS))
    road = water = boats = planes = building = trees = None
    if rng.random() < 0.75:
        road = pick(rng, ["horizontal", "vertical", "crossing", "curved"]), pick(rng, list(ROADS))
    if rng.random() < 0.6:
        kind = pick(rng, ["river", "lake"])
        water = kind, pick(rng, list(WATERS)), pick(rng, SIDES) if kind == "river" else places.pop()
        if rng.random() < 0.6:
            boats = pick(rng, [1, 2, 3]), pick(rng, ["white", "red", "yellow", "orange"]), water[2]
        if kind == "river":  # nothing stands in the water: the places of its side are taken
            bank = {"left": "left", "right": "right", "top": "upper", "bottom": "lower"}[water[2]]
            places = [place for place in places if bank not in place]
    if places and rng.random() < 0.5:
        planes = pick(rng, [1, 2, 3, 4]), pick(rng, ["white", "red", "blue", "yellow", "black"]), places.pop()
    if places and rng.random() < 0.6:
        building = pick(rng, ["square", "long", "round"]), pick(rng, list(COLORS)), places.pop()
    if places and rng.random() < 0.6:
        trees = pick(rng, [2, 3, 5, MANY]), pick(rng, list(CROWNS)), places.pop()
    scene = Scene(seed, side, land, road, water, boats, planes, building, trees)
    facts = [fact for fact in (road_fact, water_fact, boats_fact, planes_fact, building_fact, trees_fact)]
    facts = [fact for fact in facts if fact(scene, rng) is not None]
    captions = tuple(tuple(make_caption(scene, facts, rng).split()) for _ in range(N_CAPTIONS))
    return Scene(seed, side, land, road, water, boats, planes, building, trees, captions)


def pick(rng, options):
    """One of the options; by `random`, whose numbers are the same in every version of Python."""
    return options[int(rng.random() * len(options))]


# What can be said of a thing: (whether it is one, its noun phrase, where it is), or None if it is not there.


def road_fact(scene, rng):
    if scene.road is None:
        return None
    course, color = scene.road
    if course == "crossing":
        return False, pick(rng, [f"two {color} roads", f"a pair of {color} roads"]), "crossing each other"
    if course == "curved":
        return True, pick(rng, [f"a winding {color} road", f"a curved {color} road"]), "with wide bends"
    return True, pick(rng, [f"a straight {color} road", f"a {color} road"]), {
        "horizontal": "from left to right", "vertical": "from top to bottom",
    }[course]  # fmt: skip


def water_fact(scene, rng):
    if scene.water is None:
        return None
    kind, color, place = scene.water
    return True, f"a {color} {kind}", at(place, rng)


def boats_fact(scene, rng):
    return counted(scene.boats, ["boat"], f"on the {scene.water[0]}" if scene.water else "", rng)


def planes_fact(scene, rng):
    return counted(scene.planes, ["plane", "airplane"], None, rng)


def trees_fact(scene, rng):
    return counted(scene.trees, ["tree"], None, rng)


def counted(things, nouns, where, rng):
    """The fact of some things of one colour; `where` is made of their place if it is None."""
    if things is None:
        return None
    n, color, place = things
    noun = pick(rng, nouns) + ("" if n == 1 else "s")
    number = "many" if n == MANY else NUMBERS[n]
    return n == 1, f"{number} {color} {noun}", at(place, rng) if where is None else where


def building_fact(scene, rng):
    if scene.building is None:
        return None
    shape, color, place = scene.building
    return True, pick(rng, [f"a {shape} {color} building", f"a {shape} building with {color} roof"]), at(place, rng)


def at(place, rng):
    """Words for a place."""
    return pick(rng, [f"on the {place} side", f"at the {place}"])


def make_caption(scene, facts, rng):
    """One sentence about two or three of the things, which does not always say where they are."""
    land = pick(rng, LANDS[scene.land])
    chosen = sorted(facts, key=lambda fact: rng.random())[:MOST_SAID]
    chosen.sort(key=facts.index)  # people name the large things first
    said = []
    for fact in chosen:
        is_one, phrase, where = fact(scene, rng)
        said.append((is_one, f"{phrase} {where}" if rng.random() < WHERE_SHARE else phrase))
    if not said:
        return pick(rng, [f"this is {land}", f"there is only {land}", f"nothing but {land}"])
    (is_one, first), *others = said
    be, rest = "is" if is_one else "are", [phrase for _, phrase in others]
    if not rest:
        return pick(rng, [f"{first} on {land}", f"there {be} {first}", f"{land} with {first}"])
    two, three = f"{first} and {rest[0]}", " , ".join([first, *rest[:-1]]) + f" and {rest[-1]}"
    return pick(rng, [f"there {be} {two}", f"{two} on {land}", f"{land} with {two}", three, f"{three} on {land}"])


# The pixels. Coordinates are shares of the side, from the upper left.


class Canvas:
    """A picture under construction; `random` gives its details."""

    def __init__(self, side, seed):
        self.side, self.random = side, random.Random(f"{seed} pixels")
        self.noise = np.random.default_rng(int(self.random.random() * 2**32))
        self.image = Image.new("RGB", (side, side))
        self.draw = ImageDraw.Draw(self.image)

    def uniform(self, low, high):
        return low + (high - low) * self.random.random()

    def polygon(self, points, color):
        self.draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=color)

    def disc(self, x, y, radius, color):
        box = [(x - radius) * self.side, (y - radius) * self.side, (x + radius) * self.side, (y + radius) * self.side]
        self.draw.ellipse(box, fill=color)

    def line(self, points, width, color):
        width = max(1, round(width * self.side))
        self.draw.line([(x * self.side, y * self.side) for x, y in points], fill=color, width=width, joint="curve")

    def box(self, x, y, width, height, angle, color):
        """A rectangle around (x, y), turned by an angle in radians."""
        cos, sin = math.cos(angle), math.sin(angle)
        corners = [(-width, -height), (width, -height), (width, height), (-width, height)]
        self.polygon([(x + (u * cos - v * sin) / 2, y + (u * sin + v * cos) / 2) for u, v in corners], color)

    def shade(self, color, spread=18):
        change = self.uniform(-spread, spread)
        return tuple(min(255, max(0, round(part + change))) for part in color)


def draw(scene):
    """The pixels of a scene as a uint8 array (side, side, 3)."""
    canvas = Canvas(scene.side, scene.seed)
    draw_land(canvas, scene.land)
    if scene.water:
        draw_water(canvas, *scene.water, *(scene.boats or (0, None))[:2])
    if scene.road:
        draw_road(canvas, *scene.road)
    if scene.building:
        draw_building(canvas, *scene.building)
    if scene.trees:
        draw_trees(canvas, *scene.trees)
    if scene.planes:
        draw_planes(canvas, *scene.planes)
    return with_texture(canvas)


def with_texture(canvas):
    """The picture with the light and the grain of a photograph."""
    side = canvas.side
    coarse = canvas.noise.normal(0, 10, (6, 6)).astype(np.float32)
    light = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    grain = canvas.noise.integers(-9, 10, (side, side), dtype=np.int16)
    pixels = np.asarray(canvas.image, dtype=np.int16) + (light.astype(np.int16) + grain)[:, :, None]
    return pixels.clip(0, 255).astype(np.uint8)


def draw_land(canvas, land):
    base = canvas.shade(LAND_COLORS[land], 12)
    canvas.polygon([(0, 0), (1, 0), (1, 1), (0, 1)], base)
    if land == "farmland":
        n, upright = 14 + int(canvas.uniform(0, 8)), canvas.random.random() < 0.5
        for i in range(0, n, 2):
            stripe = [(i / n, 0), ((i + 1) / n, 0), ((i + 1) / n, 1), (i / n, 1)]
            canvas.polygon(stripe if upright else [(y, x) for x, y in stripe], canvas.shade((122, 132, 60), 8))
    elif land == "forest":
        for _ in range(420):
            color = canvas.shade((44, 88, 44), 20)
            canvas.disc(canvas.random.random(), canvas.random.random(), canvas.uniform(0.015, 0.035), color)
    elif land == "residential":
        for row in range(9):
            for column in range(9):
                x, y = (column + 0.5) / 9, (row + 0.5) / 9
                roof = canvas.shade(pick(canvas.random, [(150, 82, 66), (128, 124, 124), (170, 120, 90)]), 14)
                canvas.box(
                    x, y, canvas.uniform(0.05, 0.07), canvas.uniform(0.04, 0.055), canvas.uniform(-0.15, 0.15), roof
                )
    elif land == "parking":
        for row in range(16):
            canvas.line([(0, row / 16), (1, row / 16)], 0.003, (200, 200, 200))
            for column in range(22):
                if canvas.random.random() < 0.7:
                    car = canvas.shade(
                        pick(canvas.random, [(220, 220, 220), (50, 50, 56), (150, 40, 40), (70, 80, 120)]), 16
                    )
                    canvas.box((column + 0.5) / 22, (row + 0.5) / 16, 0.022, 0.04, 0, car)
    elif land == "concrete":
        for i in range(1, 8):
            canvas.line([(i / 8, 0), (i / 8, 1)], 0.003, canvas.shade((140, 140, 138), 6))
            canvas.line([(0, i / 8), (1, i / 8)], 0.003, canvas.shade((140, 140, 138), 6))
    elif land in ("grassland", "bare land", "desert"):
        for _ in range(50):
            canvas.disc(
                canvas.random.random(), canvas.random.random(), canvas.uniform(0.01, 0.05), canvas.shade(base, 9)
            )


def draw_water(canvas, kind, color, place, n_boats, boat_color):
    fill, bank = canvas.shade(WATERS[color], 10), canvas.shade((186, 172, 136), 10)
    if kind == "river":
        phase, width = canvas.uniform(0, 6), canvas.uniform(0.24, 0.3)
        edge = [(i / 20, width + 0.025 * math.sin(phase + i / 3)) for i in range(21)]
        turn = {
            "left": lambda along, depth: (depth, along), "right": lambda along, depth: (1 - depth, along),
            "top": lambda along, depth: (along, depth), "bottom": lambda along, depth: (along, 1 - depth),
        }[place]  # fmt: skip
        for grown, fill_color in ((0.02, bank), (0.0, fill)):
            points = [turn(0, 0), *(turn(along, depth + grown) for along, depth in edge), turn(1, 0)]
            canvas.polygon(points, fill_color)
        free = sorted(BOAT_SPOTS, key=lambda spot: canvas.random.random())  # away from a road that crosses the river
        spots = [turn(along, width * canvas.uniform(0.4, 0.6)) for along in free[:n_boats]]
    else:
        x, y = PLACES[place]
        phase = canvas.uniform(0, 6)
        for grown, fill_color in ((0.02, bank), (0.0, fill)):
            radii = [(grown + 0.19 + 0.02 * math.sin(phase + 3 * t), t) for t in (i * math.tau / 40 for i in range(40))]
            canvas.polygon([(x + r * math.cos(t), y + r * math.sin(t)) for r, t in radii], fill_color)
        outwards = math.copysign(1, y - 0.5)  # away from a curved road
        spots = [
            (x - 0.12 + 0.24 * (i + 0.5) / n_boats, y + outwards * canvas.uniform(0.02, 0.07)) for i in range(n_boats)
        ]
    for x, y in spots:
        angle, hull = canvas.uniform(-0.6, 0.6) + math.pi / 2, COLORS[boat_color]
        canvas.box(x, y, 0.09, 0.036, angle, hull)
        canvas.disc(x + 0.047 * math.cos(angle), y + 0.047 * math.sin(angle), 0.018, hull)
        canvas.box(x, y, 0.03, 0.016, angle, (110, 92, 84))


def draw_road(canvas, course, color):
    shift = canvas.uniform(-0.04, 0.04)
    across, down = [(-0.1, 0.5 + shift), (1.1, 0.5 + shift)], [(0.5 + shift, -0.1), (0.5 + shift, 1.1)]
    height, phase = canvas.uniform(0.12, 0.17), canvas.uniform(0, 1)
    curve = [(i / 30, 0.5 + height * math.sin(phase + math.tau * i / 30)) for i in range(-3, 34)]
    lines = {"horizontal": [across], "vertical": [down], "crossing": [across, down], "curved": [curve]}[course]
    for width, fill in ((0.085, (150, 146, 130)), (0.07, canvas.shade(ROADS[color], 6))):
        for line in lines:
            canvas.line(line, width, fill)
    for line in lines:
        for start, end in zip(line[:-1], line[1:]):
            n = max(1, round(math.dist(start, end) / 0.06))
            for i in range(n):
                ends = [tuple(a + (b - a) * share for a, b in zip(start, end)) for share in (i / n, (i + 0.5) / n)]
                canvas.line(ends, 0.006, (238, 214, 90))


def draw_building(canvas, shape, color, place):
    x, y = (part + canvas.uniform(-0.03, 0.03) for part in PLACES[place])
    fill, angle = canvas.shade(COLORS[color], 10), canvas.uniform(-0.25, 0.25)
    shadow, light = (28, 30, 30), tuple(min(255, part + 26) for part in fill)
    if shape == "round":
        canvas.disc(x + 0.018, y + 0.018, 0.12, shadow)
        canvas.disc(x, y, 0.12, fill)
        canvas.disc(x, y, 0.06, light)
        return
    width, height = (0.22, 0.22) if shape == "square" else (0.36, 0.11)
    canvas.box(x + 0.018, y + 0.018, width, height, angle, shadow)
    canvas.box(x, y, width, height, angle, fill)
    canvas.box(x, y, width * 0.8, height * 0.08, angle, light)


def draw_trees(canvas, n, color, place):
    x, y = PLACES[place]
    if n == MANY:
        spots = [(canvas.uniform(-0.17, 0.17), canvas.uniform(-0.17, 0.17)) for _ in range(n)]
    else:
        turn = canvas.uniform(0, math.tau)
        spots = [(0.1 * math.cos(turn + i * math.tau / n), 0.1 * math.sin(turn + i * math.tau / n)) for i in range(n)]
    for dx, dy in spots:
        u, v, radius = x + dx, y + dy, canvas.uniform(0.034, 0.046)
        canvas.disc(u + 0.012, v + 0.012, radius, (22, 30, 20))
        canvas.disc(u, v, radius, canvas.shade(CROWNS[color], 14))
        canvas.disc(
            u - radius / 4, v - radius / 4, radius / 2, canvas.shade(tuple(part + 30 for part in CROWNS[color]), 10)
        )


def draw_planes(canvas, n, color, place):
    x, y = PLACES[place]
    canvas.box(x, y, 0.42, 0.42, 0, canvas.shade((136, 136, 138), 8))  # the apron
    spots = {1: [(0, 0)], 2: [(-0.1, 0), (0.1, 0)], 3: [(-0.1, -0.1), (0.1, -0.1), (0, 0.1)]}.get(
        n, [(-0.1, -0.1), (0.1, -0.1), (-0.1, 0.1), (0.1, 0.1)]
    )
    heading, fill = canvas.uniform(0, math.tau), canvas.shade(COLORS[color], 8)
    for dx, dy in spots:
        cos, sin = math.cos(heading), math.sin(heading)
        for shift, tone in ((0.008, (70, 70, 72)), (0, fill)):
            u, v = x + dx + shift, y + dy + shift
            canvas.box(u, v, 0.17, 0.022, heading, tone)
            for back, span in ((0.0, 0.17), (-0.07, 0.07)):  # wings and tail, swept back
                tip = back - 0.4 * span
                points = [(back + 0.025, 0), (tip, span / 2), (tip - 0.014, span / 2), (back - 0.012, 0)]
                for mirror in (1, -1):
                    canvas.polygon(
                        [(u + a * cos - mirror * b * sin, v + a * sin + mirror * b * cos) for a, b in points], tone
                    )


def dataset_json(scenes):
    """The content of `dataset.json` for scenes of `generate`."""
    images = []
    for i, (filename, (split, scene)) in enumerate(scenes.items()):
        sentences = [{"tokens": list(words), "raw": f"{' '.join(words)} ."} for words in scene.captions]
        images.append({"filename": filename, "imgid": i, "split": split, "sentences": sentences})
    return {"images": images, "dataset": "bundled"}


def write(folder, scenes):
    """Write scenes of `generate` in the published layout: `dataset.json` and `images/`."""
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for filename, (_, scene) in scenes.items():
        Image.fromarray(draw(scene)).save(folder / "images" / filename)
    (folder / "dataset.json").write_text(json.dumps(dataset_json(scenes)), encoding="utf-8")
