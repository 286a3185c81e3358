"""The bundled data in place of the Tatoeba sentences: a grammar that writes Spanish and English side by side.

It knows agreement, conjugation, clitic pronouns, adjectives after the noun, `no`, questions; and do-support, inversion,
contractions and articles on the English side. A meaning is chosen first and then said in both languages, so that no word
stands for another by itself, and much is said alike in one of them: *su* is his, her, their and your, *ser* and *estar*
are to be, a verb without a subject leaves open who, and most sentences have several English renderings, one of which is
drawn. The words are in `bundled_translation_words.py`.
"""

import random
import re
from dataclasses import dataclass, replace

from data.bundled import translation_words as words
from data.bundled.translation_forms import (
    agree,
    conjugate,
    english_verb,
    parse_adjectives,
    parse_nouns,
    parse_verbs,
    spanish_plural,
)

PERMANENT = parse_adjectives(words.PERMANENT)
TEMPORARY = parse_adjectives(words.TEMPORARY)
NOUNS = parse_nouns()
VERBS = parse_verbs(words.VERBS)
REFLEXIVE_VERBS = parse_verbs(words.REFLEXIVE_VERBS)
DATIVE_VERBS = parse_verbs(words.DATIVE_VERBS)
MOTION_VERBS = parse_verbs(words.MOTION_VERBS)
WEATHER_VERBS = parse_verbs(words.WEATHER_VERBS)
SER, ESTAR, HABER, IR = (conjugate(verb) for verb in ("ser", "estar", "haber", "ir"))
TENER = VERBS[0]
HACER = next(verb.forms for verb in VERBS if verb.infinitive == "hacer")
PEOPLE = ("person", "kin", "job")
ACTORS = ("kin", "person", "animal", "job")
OBJECTS = ("thing", "vehicle", "matter", "place", "clothes", "text", "food", "openable", "drink", "fare")

PLAIN, NEGATED, QUESTION, NEGATED_QUESTION = range(4)
BE = {"present": ("am", "is", "are"), "past": ("was", "was", "were")}
HAVE = ("have", "has", "have")
DO = ("do", "does", "do")
CONTRACTED = {"am": "'m", "is": "'s", "are": "'re", "will": "'ll", "have": "'ve", "has": "'s"}
NOT_CONTRACTED = {"am", "may"}
SHORT_NOT = {"will": "won't", "can": "can't"}


@dataclass(frozen=True)
class Phrase:
    """A noun, name or pronoun with all that belongs to it, in both languages."""

    spanish: str  # "" for a subject left out
    english: str
    person: int  # of the Spanish verb
    english_person: int  # 0 I, 1 he, she, it, 2 the others: the index of `BE["present"]`
    gender: str
    kind: str = "person"  # class of meaning
    is_pronoun: bool = False
    is_definite: bool = True
    can_be_negated: bool = True

    @property
    def is_plural(self):
        return self.person >= 3


@dataclass(frozen=True)
class Predicate:
    """What is said of a subject.

    Spanish: finite verb, then what depends on it (infinitive, gerund, participle). English: the auxiliary verb that
    `not` and questions need and what follows it; and, where the statement needs no auxiliary, `finite` in their place.
    """

    verb: str
    dependent: str
    auxiliary: str
    rest: str
    finite: str = ""

    def followed_by(self, english):
        """The predicate with more English words at its end."""
        return replace(self, rest=join(self.rest, english), finite=self.finite and join(self.finite, english))

    @property
    def takes_enclitic(self):
        """Whether a clitic may hang on the dependent verb (verlo, viéndolo), not only stand before the finite one."""
        return self.dependent.endswith(("r", "ndo"))


def join(*parts):
    return " ".join(part for part in parts if part)


def with_article(english):
    """Put the right indefinite article before the words."""
    vowel = re.match("[aeio]|u(?!se|ni)|honest", english, re.IGNORECASE)
    return ("an " if vowel else "a ") + english


def article(noun, is_plural):
    """The definite article; *agua*, whose first a is stressed, takes *el* though it is feminine."""
    if noun.gender == "m" or (noun.spanish == "agua" and not is_plural):
        return "los" if is_plural else "el"
    return "las" if is_plural else "la"


def demonstrative(masculine, gender, is_plural):
    """*este, esta, estos, estas* from *este*; *aquel* doubles its l."""
    if gender == "m" and not is_plural:
        return masculine
    stem = masculine + "l" if masculine.endswith("l") else masculine[:-1]
    return stem + ("o" if gender == "m" else "a") + "s" * is_plural


def contract(spanish):
    """Join *a* and *de* with the article *el* (not with the pronoun *él*)."""
    return re.sub(r"\b([Dd]e|[Aa]) el\b", lambda match: match[1] + "l", spanish)


def short_not(auxiliary):
    """An English auxiliary verb with n't."""
    return SHORT_NOT.get(auxiliary, auxiliary + "n't")


def be(english_person, is_past=False):
    return BE["past" if is_past else "present"][english_person]


def with_auxiliary(auxiliary, *rest):
    return {"auxiliary": auxiliary, "rest": join(*rest)}


def with_do(verb, english_person, is_past=False, tail=""):
    """An `EnglishVerb` in a simple tense, which needs `do` for `not` and questions only."""
    form = verb.past if is_past else verb.third if english_person == 1 else verb.base
    return {
        "auxiliary": "did" if is_past else DO[english_person],
        "rest": join(verb.base, verb.rest, tail),
        "finite": join(form, verb.rest, tail),
    }


WANT, NEED, USE_TO, LIKE, LOVE = map(english_verb, ("want", "need", "use", "like", "love"))
HAVE_TO = TENER.english[0]
# Spanish verb before an infinitive; its English before a base form, in the present and in the past: an auxiliary, or
# a verb with "to".
MODALS = (
    (conjugate("poder", "o>ue pret=pud fut=podr"), "", "can", "could"),
    (TENER.forms, "que", HAVE_TO, HAVE_TO),
    (conjugate("querer", "e>ie pret=quis fut=querr"), "", WANT, WANT),
    (conjugate("deber"), "", "must", "should"),
    (conjugate("necesitar"), "", NEED, NEED),
    (conjugate("deber"), "", "should", "should"),
)
TENSES = ("present", "preterite", "going", "imperfect", "future", "perfect", "progressive", "modal", "past modal")
TENSE_WEIGHTS = (30, 24, 6, 6, 9, 6, 5, 12, 2)


class Grammar:
    """A source of sentence pairs (english, spanish), each of its methods drawing from one random stream."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    # Draws use `randrange` alone, which gives the same numbers on every system.

    def pick(self, items):
        """One of `items`, the earlier ones more often (about as 1 / rank, as words are used)."""
        return items[self.rng.randrange(self.rng.randrange(len(items)) + 1)]

    def evenly(self, items):
        return items[self.rng.randrange(len(items))]

    def either(self, english):
        """One of the renderings between bars."""
        return self.evenly(english.split("|"))

    def chance(self, percent):
        return self.rng.randrange(100) < percent

    def weighted(self, items, weights):
        ticket = self.rng.randrange(sum(weights))
        for item, weight in zip(items, weights, strict=True):
            ticket -= weight
            if ticket < 0:
                return item

    # Noun phrases

    def noun_phrase(
        self, kinds, determiners="definite indefinite possessive demonstrative number quantity bare", plain=False
    ):
        """A noun of one of the classes `kinds` with determiner and perhaps an adjective or an owner."""
        noun = self.pick(NOUNS[self.pick(kinds)])
        is_plural = not noun.is_mass and self.chance(25)
        spanish = spanish_plural(noun.spanish) if is_plural else noun.spanish
        english = self.evenly(noun.english)[is_plural]
        determiner = self.determiner(noun, is_plural, determiners.split())

        spanish_adjective = english_adjective = ""
        before = False
        if not plain and self.chance(20):
            adjective = self.pick(PERMANENT["person" if noun.kind in ACTORS else "thing"])
            english_adjective = self.evenly(adjective.english[noun.gender])
            spanish_adjective = agree(adjective.spanish, noun.gender, is_plural)
            before = adjective.spanish in words.PRENOMINAL and self.chance(60)
            if before and not is_plural and (noun.gender == "m" or adjective.spanish == "grande"):
                spanish_adjective = words.PRENOMINAL[adjective.spanish]
            if before and adjective.spanish == "grande":
                english_adjective = "great"  # un gran libro, but un libro grande
        elif not plain and determiner[:2] in ((article(noun, is_plural), "the"),) and self.chance(8):
            name, english_name, _ = self.pick(words.NAMES)
            spanish, determiner = f"{spanish} de {name}", (determiner[0], f"{english_name}'s")

        spanish_words = (spanish_adjective, spanish) if before else (spanish, spanish_adjective)
        english = join(english_adjective, english)
        spanish_determiner, english_determiner = determiner
        english = with_article(english) if english_determiner == "a" else join(english_determiner, english)
        return Phrase(
            spanish=join(spanish_determiner, *spanish_words),
            english=english,
            person=5 if is_plural else 2,
            english_person=2 if is_plural else 1,
            gender=noun.gender,
            kind=noun.kind,
            is_definite=english_determiner not in ("a", "some", ""),
        )

    def determiner(self, noun, is_plural, kinds):
        """Spanish and English determiner of one of `kinds` that suits the noun; "a" stands for a or an."""
        weights = {
            "definite": 36,
            "indefinite": 18,
            "possessive": 20,
            "demonstrative": 9,
            "number": 10,
            "quantity": 5,
            "bare": 12,
        }
        if noun.is_mass:
            kinds = [kind for kind in kinds if kind not in ("indefinite", "number")]
        if not is_plural:
            kinds = [kind for kind in kinds if kind != "number" and (noun.is_mass or kind != "bare")]
        if noun.kind == "kin":
            weights["possessive"] = 200
        kind = self.weighted(kinds, [weights[kind] for kind in kinds])

        def agreeing(word):
            return agree(word, noun.gender, is_plural)

        if kind == "definite":
            return article(noun, is_plural), "the"
        if kind == "indefinite":
            return ("un" if noun.gender == "m" else "una") if not is_plural else agreeing(
                "uno"
            ), "some" if is_plural else "a"
        if kind == "possessive":
            spanish, english = self.pick(words.POSSESSIVES)
            spanish = agreeing(spanish) if spanish.endswith("o") else spanish + "s" * is_plural
            return spanish, self.either(english)
        if kind == "demonstrative":
            spanish, singular, plural = self.pick(words.DEMONSTRATIVES)
            return demonstrative(spanish, noun.gender, is_plural), plural if is_plural else singular
        if kind == "number":
            return self.pick(words.NUMBERS)
        if kind == "quantity":
            if noun.is_mass or is_plural:
                return agreeing("mucho"), "a lot of" if self.chance(50) else "many" if is_plural else "much"
            return agreeing("otro"), "another"
        return "", self.either("|some") if not noun.is_mass else ""

    # Subjects and objects

    def pronoun(self):
        spanish, english, person, gender, dropped = self.pick(words.PRONOUNS)
        gender = gender or self.evenly("mf")
        english_person = 0 if english == "I" else 1 if english in ("he", "she") else 2
        if self.chance(dropped):
            spanish = ""
        return Phrase(spanish, english, person, english_person, gender, is_pronoun=True)

    def name(self):
        spanish, english, gender = self.pick(words.NAMES)
        return Phrase(spanish, english, 2, 1, gender)

    def actor(self):
        """Someone who does something."""
        kind = self.weighted(("pronoun", "name", "noun", "indefinite"), (66, 15, 15, 4))
        if kind == "noun":
            return self.noun_phrase(ACTORS, "definite possessive demonstrative number", plain=True)
        if kind == "indefinite":
            spanish, english, person = self.evenly(words.INDEFINITE_SUBJECTS)
            return Phrase(spanish, self.either(english), person, 1, "m", can_be_negated=False)
        return self.pronoun() if kind == "pronoun" else self.name()

    def thing(self):
        """Something that is somehow: a noun, or what is only pointed at."""
        if self.chance(35):
            spanish, english = self.evenly((("", "it"), ("", "it"), ("esto", "this"), ("eso", "that")))
            return Phrase(spanish, english, 2, 1, "m", "thing", is_pronoun=True)
        return self.noun_phrase(OBJECTS, "definite possessive demonstrative", plain=True)

    def accusative(self, verb, subject_person):
        """A clitic object of the verb and its English; none for the person that acts (that would be reflexive)."""
        is_of_people = any(kind in PEOPLE for kind in verb.objects)
        clitics = {
            clitic: english
            for clitic, (person, english) in words.ACCUSATIVE.items()
            if is_of_people and (person % 3 == 2 or person % 3 != subject_person % 3)
        }
        clitic = self.pick(list(clitics or words.ACCUSATIVE_THINGS))
        return clitic, self.either((clitics or words.ACCUSATIVE_THINGS)[clitic])

    def object(self, verb):
        """A noun phrase as the object of the verb, Spanish and English; people come after *a*."""
        if any(kind in PEOPLE for kind in verb.objects) and self.chance(30):
            phrase = self.name()
        elif verb.objects[0] == "truth":
            phrase = self.noun_phrase(verb.objects, "definite", plain=True)
        elif verb.objects[0] in ("lang", "fare", "drink", "game") or self.chance(4):
            phrase = self.noun_phrase(verb.objects, "definite bare", plain=True)
        else:
            phrase = self.noun_phrase(verb.objects)
        is_one = phrase.is_definite or phrase.spanish.startswith(("un ", "una "))
        personal = phrase.kind in PEOPLE and is_one and verb.infinitive not in ("tener", "necesitar")
        return ("a " if personal else "") + phrase.spanish, phrase.english

    # Predicates

    def predicate(self, verb, english, subject, tense):
        """What the subject does: a Spanish verb and its rendering (an `EnglishVerb`) in one of `TENSES`."""
        forms, person, english_person = verb.forms, subject.person, subject.english_person
        progressive = with_auxiliary(be(english_person), english.gerund, english.rest)
        past_progressive = with_auxiliary(be(english_person, is_past=True), english.gerund, english.rest)
        perfect = with_auxiliary(HAVE[english_person], english.participle, english.rest)
        present, past = with_do(english, english_person), with_do(english, english_person, is_past=True)
        future = with_auxiliary("will", english.base, english.rest)
        goes_on = not verb.is_static

        if tense == "present":
            options, spanish = [present, present, progressive if goes_on else present], (forms["present"][person], "")
        elif tense == "preterite":
            options, spanish = [past], (forms["preterite"][person], "")
        elif tense == "imperfect":
            used_to = with_do(USE_TO, english_person, is_past=True, tail=join("to", english.base, english.rest))
            options = [past, used_to, past_progressive if goes_on else past]
            spanish = forms["imperfect"][person], ""
        elif tense == "future":
            options, spanish = [future], (forms["future"][person], "")
        elif tense == "going":
            going = with_auxiliary(be(english_person), "going to", english.base, english.rest)
            options, spanish = [going, going, future], (f"{IR['present'][person]} a", verb.infinitive)
        elif tense == "perfect":
            options, spanish = [perfect, perfect, past], (HABER["present"][person], forms["participle"])
        elif tense == "progressive":
            options, spanish = [progressive], (ESTAR["present"][person], forms["gerund"])
        else:
            return self.modal_predicate(verb, english, subject, is_past=tense == "past modal")
        return Predicate(*spanish, **self.evenly(options))

    def modal_predicate(self, verb, english, subject, is_past):
        forms, link, *renderings = self.pick(MODALS)
        modal = renderings[is_past]
        if isinstance(modal, str):
            said = with_auxiliary(modal, english.base, english.rest)
        else:
            said = with_do(modal, subject.english_person, is_past, join("to", english.base, english.rest))
            if modal is HAVE_TO and not is_past and self.chance(30):
                said = with_auxiliary("must", english.base, english.rest)
        finite = forms["imperfect" if is_past else "present"][subject.person]
        return Predicate(join(finite, link), verb.infinitive, **said)

    def being(self, forms, subject, tense, english):
        """A form of *ser* or *estar* with the English complement of to be."""
        if tense == "future":
            said = with_auxiliary("will", "be", english)
        else:
            said = with_auxiliary(be(subject.english_person, tense != "present"), english)
        return Predicate(forms[tense][subject.person], "", **said)

    def tense_of_being(self):
        return self.weighted(("present", "imperfect", "preterite", "future"), (70, 14, 10, 6))

    # Sentences

    def mood(self, subject):
        """Plain, negated, question or negated question."""
        if not subject.can_be_negated:
            return PLAIN
        return self.weighted((PLAIN, NEGATED, QUESTION, NEGATED_QUESTION), (62, 18, 18, 2))

    def sentence(self, subject, predicate, mood=None, clitic="", spanish_tail="", adverb=None, ask=("", "")):
        """Say one thing in both languages.

        Args:
            subject: `Phrase`; predicate: `Predicate`, its English complete.
            clitic: before the finite Spanish verb, or on the end of the verb that depends on it.
            spanish_tail: what follows the Spanish verb.
            adverb: Spanish and English adverb of frequency, or None.
            ask: question words that open a question, ("dónde", "where").
        """
        mood = self.mood(subject) if mood is None else mood
        is_question = mood in (QUESTION, NEGATED_QUESTION)
        is_negated = mood in (NEGATED, NEGATED_QUESTION)
        if is_negated and adverb and adverb[1] != "always":
            adverb = None
        spanish_adverb, english_adverb = adverb or ("", "")

        verb, dependent = predicate.verb, predicate.dependent
        if clitic and predicate.takes_enclitic and self.chance(50):
            dependent, clitic = dependent + clitic, ""
        before = join(spanish_adverb, "no" if is_negated else "", clitic, verb, dependent)
        if is_question and (ask[0] or self.chance(55)):
            spanish = join(ask[0], before, subject.spanish, spanish_tail)
        else:
            spanish = join(ask[0], subject.spanish, before, spanish_tail)
        spanish = f"¿{spanish}?" if is_question else spanish + "."
        return self.english(subject, predicate, is_question, is_negated, english_adverb, ask[1]), contract(spanish)

    def english(self, subject, predicate, is_question, is_negated, adverb, ask):
        """The English side of `sentence`."""
        auxiliary, rest = predicate.auxiliary, join(adverb, predicate.rest)
        if is_question:
            if is_negated and auxiliary not in NOT_CONTRACTED:
                return join(ask, short_not(auxiliary), subject.english, rest) + "?"
            return join(ask, auxiliary, subject.english, "not" if is_negated else "", rest) + "?"
        if is_negated:
            if auxiliary in ("am", "is", "are") and subject.is_pronoun and self.chance(40):
                return join(subject.english + CONTRACTED[auxiliary], "not", rest) + "."
            if auxiliary in NOT_CONTRACTED or self.chance(20):
                return join(subject.english, auxiliary, "not", rest) + "."
            return join(subject.english, short_not(auxiliary), rest) + "."
        if predicate.finite:
            return join(subject.english, adverb, predicate.finite) + "."
        if subject.is_pronoun and auxiliary in CONTRACTED and self.chance(65):
            if (subject.english, auxiliary) != ("this", "is"):
                return join(subject.english + CONTRACTED[auxiliary], rest) + "."
        return join(subject.english, auxiliary, rest) + "."

    def adverb(self, tense, subject, only=None):
        """An adverb that goes with the tense, of those in `only` if given: Spanish, English."""
        spanish, english, tenses = self.pick(words.ADVERBS)
        if (
            (tenses and tense not in tenses)
            or (only and spanish not in only)
            or (spanish == "juntos@") > subject.is_plural
        ):
            return "", ""
        if spanish.endswith("@"):
            spanish = agree(spanish[:-1].removesuffix("s"), subject.gender, subject.is_plural)
        return spanish, self.either(english)

    def frequency(self, tense):
        if not self.chance(6):
            return None
        spanish, english = self.pick(words.FREQUENCIES)
        fits = (
            tense in ("present", "imperfect") if english in ("always", "never") else tense in ("preterite", "perfect")
        )
        return (spanish, self.either(english)) if fits else None
