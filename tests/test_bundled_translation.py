"""The bundled Spanish-English grammar: frozen, correct in its agreement, ambiguous, and split without leaks."""

import itertools
import re
from collections import defaultdict

import pytest

from data import text, translation
from data.bundled import translation as bundled_translation
from data.bundled import translation_forms as forms
from data.bundled import translation_grammar as grammar

FINGERPRINT = "da2598b61bdbfb911cffabeaf0956c882515bdc39e7b0f8928ff2297458ce551"
SIZES = {"train": 16002, "val": 1964, "test": 2034}


@pytest.fixture(scope="module")
def pairs():
    return bundled_translation.generate()


def test_the_pairs_are_frozen(pairs):
    splits = translation.split_pairs(pairs)
    assert {split: len(members) for split, members in splits.items()} == SIZES
    assert translation.fingerprint(splits) == FINGERPRINT


def test_the_pairs_are_distinct_short_and_normalised(pairs):
    assert len(set(pairs)) == len(pairs) >= 20_000
    for english, spanish in pairs:
        assert 0 < len(english) < text.EVAL_MAX_LENGTH and 0 < len(spanish) < text.EVAL_MAX_LENGTH
        assert text.normalize(english) == english and text.normalize(spanish) == spanish


def test_no_spanish_sentence_is_in_two_splits(pairs):
    splits = translation.split_pairs(pairs)
    for a, b in itertools.combinations(splits.values(), 2):
        assert not {spanish for _, spanish in a} & {spanish for _, spanish in b}


def test_a_longer_limit_only_adds_training_pairs(pairs):
    short = translation.split_pairs(pairs)
    long = translation.split_pairs(bundled_translation.generate(max_length=30), max_length=30)
    assert long["val"] == short["val"] and long["test"] == short["test"]
    assert set(long["train"]) > set(short["train"])


def test_there_is_ambiguity_both_ways_and_a_real_vocabulary(pairs):
    renderings, sources = defaultdict(set), defaultdict(set)
    for english, spanish in pairs:
        renderings[spanish].add(english)
        sources[english].add(spanish)
    for meanings in (renderings, sources):
        assert sum(len(others) > 1 for others in meanings.values()) > 0.1 * len(meanings)
    for side, least in ((0, 900), (1, 2000)):
        assert len({word for pair in pairs for word in pair[side].split()}) > least


def test_it_is_no_word_for_word_code(pairs):
    """In most pairs the two sides have different numbers of words, and few words have one constant counterpart."""
    lengths = [(len(english.split()), len(spanish.split())) for english, spanish in pairs]
    assert sum(a != b for a, b in lengths) > 0.5 * len(pairs)


CONJUGATION = {  # infinitive, marks of the word tables -> tense -> yo, tú, él, nosotros, vosotros, ellos
    ("hablar", ""): {
        "present": "hablo hablas habla hablamos habláis hablan",
        "preterite": "hablé hablaste habló hablamos hablasteis hablaron",
        "imperfect": "hablaba hablabas hablaba hablábamos hablabais hablaban",
        "future": "hablaré hablarás hablará hablaremos hablaréis hablarán",
        "subjunctive": "hable hables hable hablemos habléis hablen",
    },
    ("comer", ""): {
        "present": "como comes come comemos coméis comen",
        "preterite": "comí comiste comió comimos comisteis comieron",
        "imperfect": "comía comías comía comíamos comíais comían",
    },
    ("tener", "e>ie yo=tengo pret=tuv fut=tendr tu=ten"): {
        "present": "tengo tienes tiene tenemos tenéis tienen",
        "preterite": "tuve tuviste tuvo tuvimos tuvisteis tuvieron",
        "future": "tendré tendrás tendrá tendremos tendréis tendrán",
        "subjunctive": "tenga tengas tenga tengamos tengáis tengan",
    },
    ("pedir", "e>i"): {
        "present": "pido pides pide pedimos pedís piden",
        "preterite": "pedí pediste pidió pedimos pedisteis pidieron",
    },
    ("dormir", "o>ue"): {
        "present": "duermo duermes duerme dormimos dormís duermen",
        "preterite": "dormí dormiste durmió dormimos dormisteis durmieron",
    },
    ("buscar", ""): {"preterite": "busqué buscaste buscó buscamos buscasteis buscaron"},
    ("leer", ""): {"preterite": "leí leíste leyó leímos leísteis leyeron"},
    ("ser", ""): {
        "present": "soy eres es somos sois son",
        "preterite": "fui fuiste fue fuimos fuisteis fueron",
        "imperfect": "era eras era éramos erais eran",
    },
    ("estar", ""): {"present": "estoy estás está estamos estáis están"},
    ("ir", ""): {"present": "voy vas va vamos vais van", "imperfect": "iba ibas iba íbamos ibais iban"},
}


@pytest.mark.parametrize("verb", CONJUGATION, ids=lambda verb: verb[0])
def test_conjugation_against_a_grammar_book(verb):
    conjugated = forms.conjugate(*verb)
    for tense, expected in CONJUGATION[verb].items():
        assert list(conjugated[tense]) == expected.split()


@pytest.mark.parametrize(
    ("adjective", "agreed"),
    [
        ("rojo", "rojo roja rojos rojas"),
        ("grande", "grande grande grandes grandes"),
        ("azul", "azul azul azules azules"),
        ("feliz", "feliz feliz felices felices"),
    ],
)
def test_adjectives_agree(adjective, agreed):
    cases = [("m", False), ("f", False), ("m", True), ("f", True)]
    assert [forms.agree(adjective, gender, is_plural) for gender, is_plural in cases] == agreed.split()


ARTICLES = {  # of the definite, the indefinite and the demonstratives: gender, plural
    "el": "ms", "la": "fs", "los": "mp", "las": "fp", "un": "ms", "una": "fs", "unos": "mp", "unas": "fp",
    "este": "ms", "esta": "fs", "estos": "mp", "estas": "fp", "ese": "ms", "esa": "fs", "esos": "mp", "esas": "fp",
    "aquel": "ms", "aquella": "fs", "aquellos": "mp", "aquellas": "fp",
    "nuestro": "ms", "nuestra": "fs", "nuestros": "mp", "nuestras": "fp",
}  # fmt: skip


def test_determiner_noun_and_adjective_agree_in_noun_phrases():
    g = grammar.Grammar(seed=1)
    gender_of = defaultdict(set)
    for nouns in grammar.NOUNS.values():
        for noun in nouns:
            gender_of[noun.spanish].add(noun.gender + "s")
            gender_of[forms.spanish_plural(noun.spanish)].add(noun.gender + "p")
    n_checked = n_adjectives = 0
    for _ in range(3000):
        phrase = g.noun_phrase(list(grammar.NOUNS))
        first, *rest = phrase.spanish.split()
        if first not in ARTICLES or not rest:
            continue
        noun = next((word for word in rest if word in gender_of), None)
        if noun is None or (first == "el" and noun == "agua"):
            continue
        assert ARTICLES[first] in gender_of[noun], phrase
        assert (ARTICLES[first][1] == "p") == phrase.is_plural
        n_checked += 1
        adjective = rest[-1]
        if rest.index(noun) == 0 and len(rest) == 2 and re.search("(?<!st)(?:o|a)s?$", adjective):
            assert adjective.endswith({"ms": "o", "fs": "a", "mp": "os", "fp": "as"}[ARTICLES[first]]), phrase
            n_adjectives += 1
    assert n_checked > 500 and n_adjectives > 30


def test_verbs_agree_with_their_subjects_in_both_languages(pairs):
    """Whatever follows a pronoun in a plain statement is a form of its person."""
    wrong = {
        "i": "(is|are|has|does|doesn t|isn t|goes|wants)",
        "he": "(am|are|have|do|don t|were|go|want)",
        "she": "(am|are|have|do|don t|were|go|want)",
        "we": "(am|is|has|does|doesn t|was|goes|wants)",
        "they": "(am|is|has|does|doesn t|was|goes|wants)",
        "you": "(am|is|has|does|doesn t|was|goes|wants)",
    }
    for english, _ in pairs:
        for pronoun, verbs in wrong.items():
            assert not re.match(rf"{pronoun} {verbs}\b", english), english
    wrong_spanish = {"yo": "(es|eres|esta|estas|son|tiene)", "tu": "(soy|es|estoy|esta|tengo|tiene)"}
    wrong_spanish |= dict.fromkeys(("el", "ella"), "(soy|eres|estoy|estas|tengo|tienes)")
    wrong_spanish |= dict.fromkeys(("ellos", "ellas"), "(soy|es|esta|tiene)")
    for _, spanish in pairs:
        for pronoun, verbs in wrong_spanish.items():
            assert not re.match(rf"{pronoun} {verbs}\b", spanish), spanish


def test_a_and_de_are_contracted_with_the_article_but_not_with_the_pronoun():
    assert grammar.contract("voy a el parque de el rey con él") == "voy al parque del rey con él"
    assert grammar.contract("a él y de ella") == "a él y de ella"


def test_generation_does_not_depend_on_what_was_generated_before():
    assert bundled_translation.generate(n_pairs=50) == bundled_translation.generate(n_pairs=50)
    assert bundled_translation.generate(n_pairs=50, seed=1) != bundled_translation.generate(n_pairs=50)
