"""How the words of the bundled sentences inflect, in Spanish and in English.

A grammatical person is a number: 0 yo, 1 tú, 2 él, ella or usted, 3 nosotros, 4 vosotros, 5 ellos, ellas or ustedes.
Accents that a longer form moves or loses (canción, canciones) are left where they were: `normalize` drops them all.
"""

import re
from dataclasses import dataclass

from data.bundled.translation_words import NOUNS

N_PERSONS = 6

# Forms that no rule gives, by tense and person; the tenses that are not here follow the rules.
IRREGULAR = {
    "ser": {
        "present": "soy eres es somos sois son",
        "preterite": "fui fuiste fue fuimos fuisteis fueron",
        "imperfect": "era eras era éramos erais eran",
        "subjunctive": "sea seas sea seamos seáis sean",
        "imperative": "sé",
    },
    "ir": {
        "present": "voy vas va vamos vais van",
        "preterite": "fui fuiste fue fuimos fuisteis fueron",
        "imperfect": "iba ibas iba íbamos ibais iban",
        "subjunctive": "vaya vayas vaya vayamos vayáis vayan",
        "imperative": "ve",
        "gerund": "yendo",
    },
    "estar": {
        "present": "estoy estás está estamos estáis están",
        "preterite": "estuve estuviste estuvo estuvimos estuvisteis estuvieron",
        "subjunctive": "esté estés esté estemos estéis estén",
    },
    "haber": {"present": "he has ha hemos habéis han"},
    "dar": {
        "present": "doy das da damos dais dan",
        "preterite": "di diste dio dimos disteis dieron",
        "subjunctive": "dé des dé demos deis den",
    },
    "ver": {
        "present": "veo ves ve vemos veis ven",
        "preterite": "vi viste vio vimos visteis vieron",
        "imperfect": "veía veías veía veíamos veíais veían",
        "participle": "visto",
    },
    "oír": {"present": "oigo oyes oye oímos oís oyen"},
    "saber": {"subjunctive": "sepa sepas sepa sepamos sepáis sepan"},
}
ENDINGS = {  # tense -> vowel of the infinitive -> ending of each person
    "present": {"a": "o as a amos áis an", "e": "o es e emos éis en", "i": "o es e imos ís en"},
    "preterite": {
        "a": "é aste ó amos asteis aron",
        "e": "í iste ió imos isteis ieron",
        "i": "í iste ió imos isteis ieron",
    },
    "imperfect": {
        "a": "aba abas aba ábamos abais aban",
        "e": "ía ías ía íamos íais ían",
        "i": "ía ías ía íamos íais ían",
    },
    "subjunctive": {"a": "e es e emos éis en", "e": "a as a amos áis an", "i": "a as a amos áis an"},
}
STRONG_PRETERITE = "e iste o imos isteis ieron".split()  # of irregular stems such as tuv-, for every infinitive
FUTURE = "é ás á emos éis án".split()
STRESSED_STEM = {0, 1, 2, 5}  # persons whose stress falls on the stem; the present changes it for these only
UNCHANGING = {"bien", "mal", "a salvo", "de vuelta", "de pie"}  # stand where adjectives do


@dataclass(frozen=True)
class Noun:
    spanish: str
    gender: str  # "m" or "f"
    english: tuple  # renderings, each (singular, plural); the plural of a mass noun is None
    kind: str  # its class of meaning

    @property
    def is_mass(self):
        return self.english[0][1] is None


@dataclass(frozen=True)
class Adjective:
    spanish: str
    english: dict  # gender of what it describes -> renderings


@dataclass(frozen=True)
class EnglishVerb:
    base: str
    past: str
    participle: str
    gerund: str
    rest: str  # what stays behind the verb: "up", "for", ""

    @property
    def third(self):
        """The form after he, she, it."""
        return "has" if self.base == "have" else with_s(self.base)


@dataclass(frozen=True)
class Verb:
    infinitive: str
    forms: dict  # see `conjugate`
    english: tuple  # of EnglishVerb
    objects: tuple  # classes of nouns
    is_static: bool  # takes no progressive: nobody "is knowing"
    stands_alone: bool  # needs no object


def with_s(word):
    """The English ending -s, of plurals and of the third person."""
    if re.search(r"(s|x|z|ch|sh|[^aeiou]o)$", word) and word not in ("piano", "photo"):
        return word + "es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", word) + "s"


def spanish_plural(word):
    if word.endswith("s"):
        return word if word == "paraguas" else word + "es"
    return re.sub("z$", "c", word) + ("s" if word[-1] in "aeiouáéíóú" else "es")


def agree(adjective, gender, is_plural):
    """The form of a Spanish adjective for a noun: altos, española, verdes."""
    if adjective in UNCHANGING:
        return adjective
    if gender == "f":
        adjective = re.sub(r"(és|án|ol)$", r"\1a", re.sub("o$", "a", adjective))
    return spanish_plural(adjective) if is_plural else adjective


def spelled(stem, ending):
    """Join the parts of an -ar verb so that its last consonant keeps its sound before e: busqué, pagué, empecé."""
    if ending[0] in "eé":
        stem = re.sub("z$", "c", re.sub("g$", "gu", re.sub("c$", "qu", stem)))
    return stem + ending


def conjugate(infinitive, marks=""):
    """The forms of a Spanish verb.

    `marks` are what the infinitive does not tell: a stem change (`o>ue`), `yo=` the first person of the present, `pret=`
    and `fut=` the stems of these tenses, `part=` the participle, `tu=` the imperative.

    Returns a dict: `present`, `preterite`, `imperfect`, `future`, `subjunctive` with a form for each of the six persons;
    `infinitive`, `gerund`, `participle`, `imperative` (to tú) and `imperative_plural` (to vosotros).
    """
    known = dict(mark.split("=") for mark in marks.split() if "=" in mark)
    change = [mark.split(">") for mark in marks.split() if ">" in mark]
    stem, vowel = infinitive[:-2], infinitive[-2].replace("í", "i")
    stressed = soft = stem
    if change:
        [(old, new)] = change
        before, _, after = stem.rpartition(old)
        stressed = before + new + after
        if vowel == "i":
            soft = before + new[0] + after  # pidió, durmió, prefirió; pidiendo

    def join(stem, ending):
        return spelled(stem, ending) if vowel == "a" else stem + ending

    def inflect(tense, other_stem, persons):
        """The tense by its endings, with `other_stem` for some of the persons."""
        endings = enumerate(ENDINGS[tense][vowel].split())
        return [join(other_stem if person in persons else stem, ending) for person, ending in endings]

    forms = {
        "infinitive": infinitive,
        "present": inflect("present", stressed, STRESSED_STEM),
        "preterite": inflect("preterite", soft, {2, 5}),
        "imperfect": inflect("imperfect", stem, {}),
        "future": [known.get("fut", infinitive.replace("í", "i")) + ending for ending in FUTURE],
        "gerund": soft + ("ando" if vowel == "a" else "iendo"),
        "participle": known.get("part", stem + ("ado" if vowel == "a" else "ido")),
    }
    if stem[-1:] in ("a", "e", "o"):  # an i between two vowels is written y: leyó, oyeron, trayendo
        forms["preterite"] = [re.sub("i(?=[óe])", "y", form) for form in forms["preterite"]]
        # Before a consonant it bears the stress: leíste, oímos, caído.
        forms["preterite"] = [re.sub(f"^{stem}i(?=[sm])", f"{stem}í", form) for form in forms["preterite"]]
        forms["participle"] = re.sub("(?<=[aeo])ido$", "ído", forms["participle"])
        forms["gerund"] = stem + "yendo"
    if "pret" in known:
        forms["preterite"] = [known["pret"] + ending for ending in STRONG_PRETERITE]
        forms["preterite"][2] = re.sub("co$", "zo", forms["preterite"][2])  # hizo
        forms["preterite"][5] = re.sub("jieron$", "jeron", forms["preterite"][5])  # dijeron
    forms["present"][0] = known.get("yo", forms["present"][0])
    forms |= {tense: words.split() if " " in words else words for tense, words in IRREGULAR.get(infinitive, {}).items()}

    # The subjunctive keeps what is irregular about yo: tengo -> tenga, conozco -> conozca.
    first_person = re.sub("o$", "", forms["present"][0])
    persons = range(N_PERSONS) if "yo" in known else STRESSED_STEM
    forms.setdefault("subjunctive", inflect("subjunctive", first_person, persons))
    forms.setdefault("imperative", known.get("tu", forms["present"][2]))
    forms["imperative_plural"] = infinitive[:-1] + "d"
    return forms


def _entries(table):
    return [entry.split() for entry in table.split(",")]


def _noun_forms(singular, plural=None):
    if plural == "-":
        return singular, None
    return singular, plural or with_s(singular)


def parse_nouns():
    """`NOUNS` as a dict of lists of `Noun`, by class."""
    nouns = {}
    for kind, table in NOUNS.items():
        nouns[kind] = []
        for spanish, gender, *english in _entries(table):
            renderings = [rendering.split() for rendering in " ".join(english).split("|")]
            forms = tuple(_noun_forms(*(word.replace("_", " ") for word in words)) for words in renderings)
            nouns[kind].append(Noun(spanish, gender, forms, kind))
    return nouns


def parse_adjectives(tables):
    """`PERMANENT` or `TEMPORARY` as a dict of lists of `Adjective`."""
    adjectives = {}
    for kind, table in tables.items():
        adjectives[kind] = []
        for spanish, english in _entries(table):
            of_man, _, of_woman = english.partition("~")
            renderings = {"m": tuple(of_man.split("|")), "f": tuple((of_woman or of_man).split("|"))}
            adjectives[kind].append(Adjective(spanish.replace("_", " "), renderings))
    return adjectives


def english_verb(text):
    """The forms of "come came come ~back"; those that follow the rules may be left out."""
    words, _, rest = text.partition("~")
    base, *irregular = words.split()
    past = base + "d" if base.endswith("e") else re.sub(r"(?<=[^aeiou])y$", "i", base) + "ed"
    gerund = re.sub("(?<=[^eiy])e$", "", base) + "ing"
    past, participle, gerund = [*irregular, *[past, past, gerund][len(irregular) :]]
    return EnglishVerb(base, past, participle, gerund, rest.strip())


def parse_verbs(table):
    """One of the tables of verbs as a list of `Verb`."""
    verbs = []
    for line in table.strip().splitlines():
        infinitive, english, marks, tags = (field.strip() for field in line.split(":"))
        tags = tags.split()
        verbs.append(
            Verb(
                infinitive=infinitive,
                forms=conjugate(infinitive, marks),
                english=tuple(english_verb(text) for text in english.split(",")),
                objects=tuple(tag for tag in tags if tag in NOUNS),
                is_static="static" in tags,
                stands_alone="alone" in tags or not tags,
            )
        )
    return verbs
