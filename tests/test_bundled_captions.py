"""The bundled captioned images: frozen, drawn from a seed, and described by their captions."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from data.bundled import captions

# The generator is frozen: these change only together with every result on the bundled images.
FINGERPRINTS = {
    "sydney": "1bb379de28191580875a5ee8d9f868f4d5792f82ebfd0c9794736257f6ec5e83",
    "ucm": "853c968d88ff97265613fd359c2a3e5935c691e7718a3a4c85fc264d8da24079",
}
PIXELS = {"sydney 219": "f2b851a972820416", "sydney 357": "f555adda07960041", "ucm 1": "9bdd9b994da13cdf"}


@pytest.mark.parametrize("name", captions.SETS)
def test_the_captions_are_frozen(name):
    content = json.dumps(captions.dataset_json(captions.generate(name)), sort_keys=True)
    assert hashlib.sha256(content.encode()).hexdigest() == FINGERPRINTS[name]


@pytest.mark.parametrize("seed", PIXELS)
def test_the_pixels_are_frozen(seed):
    name, number = seed.split()
    _, scene = captions.generate(name)[f"{number}.tif"]
    pixels = captions.draw(scene)
    assert pixels.shape == (scene.side, scene.side, 3)
    assert (pixels == captions.draw(scene)).all()
    # Means of 10x10 blocks, rounded: another version of Pillow may draw the edge of a shape differently.
    side = scene.side // 10 * 10
    blocks = pixels[:side, :side].reshape(10, side // 10, 10, side // 10, 3).mean(axis=(1, 3))
    assert hashlib.sha256(np.round(blocks / 8).astype(np.uint8).tobytes()).hexdigest()[:16] == PIXELS[seed]


@pytest.mark.parametrize(("name", "sizes"), [("sydney", (497, 58, 58)), ("ucm", (1680, 210, 210))])
def test_the_splits_are_those_of_the_published_sets(name, sizes):
    scenes = captions.generate(name)
    counts = Counter(split for split, _ in scenes.values())
    assert (counts["train"], counts["val"], counts["test"]) == sizes
    assert list(scenes) == [f"{i}.tif" for i in range(1, sum(sizes) + 1)]
    if name == "sydney":
        assert {scenes[asked][0] for asked in ("219.tif", "357.tif", "540.tif")} == {"test"}


def things(caption):
    """What a caption says of the counted and the coloured things."""
    said = {}
    for i, word in enumerate(caption):
        for thing, nouns in (("planes", "plane planes airplane airplanes"), ("boats", "boat boats")):
            if word in nouns.split():
                said[thing] = caption[i - 2 : i]
        if word in ("tree", "trees"):
            said["trees"] = caption[i - 2 : i]
        if word == "building":
            said["building"] = word
        if word in ("river", "lake") and caption[i - 1] != "the":  # "on the lake" speaks of the boats
            said["water"] = word
        if word in ("road", "roads"):
            said["road"] = caption[i - 1]
    return said


def test_captions_say_what_is_drawn_and_nothing_else():
    mentioned = Counter()
    for _, scene in captions.generate("sydney").values():
        assert len(scene.captions) == captions.N_CAPTIONS
        for caption in scene.captions:
            said = things(caption)
            for thing in said:
                assert getattr(scene, thing) is not None, caption
            for thing in ("planes", "boats", "trees"):
                if thing in said:
                    number, color, _ = getattr(scene, thing)
                    word = "many" if number == captions.MANY else captions.NUMBERS[number]
                    assert tuple(said[thing]) == (word, color)
            if "water" in said:
                assert said["water"] == scene.water[0]
            if "road" in said:
                assert said["road"] == scene.road[1]
            if "building" in said:
                text = " ".join(caption)
                assert scene.building[0] in text and scene.building[1] in text
            mentioned.update(list(said))
    assert min(mentioned.values()) > 200 and len(mentioned) == 6


def colored(scene, color, place):
    """The share of the pixels around a place that are near a colour."""
    x, y = (int(part * scene.side) for part in captions.PLACES[place])
    reach = scene.side // 5
    patch = captions.draw(scene)[y - reach : y + reach, x - reach : x + reach].astype(int)
    return (np.abs(patch - color).max(axis=2) < 50).mean()


def test_what_the_captions_name_is_in_its_place():
    scenes = [scene for _, scene in captions.generate("ucm", 60).values()]
    with_building = [scene for scene in scenes if scene.building][:8]
    for scene in with_building:
        _, color, place = scene.building
        assert colored(scene, captions.COLORS[color], place) > 0.15
    with_lake = [scene for scene in scenes if scene.water and scene.water[0] == "lake"][:8]
    for scene in with_lake:
        _, color, place = scene.water
        assert colored(scene, captions.WATERS[color], place) > 0.35


def test_things_do_not_stand_in_one_place():
    for _, scene in captions.generate("sydney").values():
        places = [thing[2] for thing in (scene.planes, scene.building, scene.trees) if thing]
        places += [scene.water[2]] if scene.water and scene.water[0] == "lake" else []
        assert len(places) == len(set(places))
