"""The bundled data in place of the Tatoeba sentences: a grammar says sentences in Spanish and in English at once.

A meaning is chosen first and then said in both languages, so that no word stands for another by itself. Much is said
alike in one of them: *su* is his, her, their and your, *ser* and *estar* are to be, a verb without a subject leaves
open who. Most sentences have several English renderings, one of which is drawn. The grammar is in
`bundled_translation_grammar.py`, the forms of words in `bundled_translation_forms.py`, the words themselves in
`bundled_translation_words.py`.
"""

from dataclasses import replace

from data import text
from data.bundled import translation_words as words
from data.bundled.translation_forms import UNCHANGING, agree, conjugate, english_verb, spanish_plural
from data.bundled.translation_grammar import (
    ACTORS,
    DATIVE_VERBS,
    ESTAR,
    HACER,
    HAVE_TO,
    LIKE,
    LOVE,
    MOTION_VERBS,
    NEGATED,
    NEGATED_QUESTION,
    NOUNS,
    OBJECTS,
    PEOPLE,
    PERMANENT,
    PLAIN,
    QUESTION,
    REFLEXIVE_VERBS,
    SER,
    TEMPORARY,
    TENER,
    TENSE_WEIGHTS,
    TENSES,
    VERBS,
    WEATHER_VERBS,
    Grammar,
    Phrase,
    Predicate,
    be,
    contract,
    join,
    with_article,
    with_auxiliary,
    with_do,
)

SEED = 20221223
N_PAIRS = 20_000  # distinct pairs shorter than the handout's limit on both sides


def action(g):
    """*¿No lo has visto?*, *Mi hermano compró un coche.*"""
    subject, tense = g.actor(), g.weighted(TENSES, TENSE_WEIGHTS)
    verb = g.pick(VERBS)
    if verb.is_static and tense == "progressive":
        tense = "present"
    predicate = g.predicate(verb, g.evenly(verb.english), subject, tense)
    clitic = tail = english = ""
    only = None
    if not verb.stands_alone or (verb.objects and g.chance(50)):
        only = words.TIMES
        if g.chance(30) and "lang" not in verb.objects:
            clitic, english = g.accusative(verb, subject.person)
        else:
            tail, english = g.object(verb) if verb.objects else ("", "")
    spanish_adverb, english_adverb = g.adverb(tense, subject, only) if g.chance(60 if not only else 15) else ("", "")
    predicate = predicate.followed_by(join(english, english_adverb))
    return g.sentence(subject, predicate, None, clitic, join(tail, spanish_adverb), adverb=g.frequency(tense))


def indefinite_object(g):
    """*No vi a nadie.*, *Quiero comprar algo.*"""
    verb = g.pick([verb for verb in VERBS if verb.objects and verb.infinitive != "conducir"])
    tense = g.weighted(TENSES, TENSE_WEIGHTS)
    subject = g.pronoun()
    predicate = g.predicate(verb, g.evenly(verb.english), subject, "present" if verb.is_static else tense)
    mood = g.weighted((PLAIN, NEGATED, QUESTION), (35, 45, 20))
    is_person = verb.objects[0] in PEOPLE
    if mood == NEGATED:
        spanish, english = ("a nadie", "anyone|anybody") if is_person else ("nada", "anything")
    else:
        spanish, english = ("a alguien", "someone|somebody") if is_person else ("algo", "something")
    return g.sentence(subject, predicate.followed_by(g.either(english)), mood, spanish_tail=spanish)


def reflexive(g):
    """*Me voy mañana.*, *Se quiere casar.*"""
    subject, tense = g.actor(), g.weighted(TENSES, TENSE_WEIGHTS)
    verb = g.pick(REFLEXIVE_VERBS)
    predicate = g.predicate(verb, g.evenly(verb.english), subject, tense)
    spanish_adverb, english_adverb = g.adverb(tense, subject, words.TIMES) if g.chance(20) else ("", "")
    return g.sentence(
        subject, predicate.followed_by(english_adverb), None, words.REFLEXIVE[subject.person], spanish_adverb
    )


def giving(g):
    """*Me dio un libro.*, *¿Nos lo vas a decir?* is said with the thing as a noun."""
    subject, tense = g.actor(), g.weighted(TENSES, TENSE_WEIGHTS)
    verb = g.pick(DATIVE_VERBS)
    people = [
        clitic for clitic, (person, _) in words.DATIVE.items() if person % 3 == 2 or person % 3 != subject.person % 3
    ]
    clitic = g.pick(people)
    tail, english = g.object(verb) if verb.objects else ("", "")
    predicate = g.predicate(verb, g.evenly(verb.english), subject, tense)
    return g.sentence(
        subject, predicate.followed_by(join(g.either(words.DATIVE[clitic][1]), english)), None, clitic, tail
    )


def motion(g):
    """*Voy al parque.*, *¿Volverás a casa?*"""
    subject, tense = g.actor(), g.weighted(TENSES, TENSE_WEIGHTS)
    verb = g.pick(MOTION_VERBS)
    predicate = g.predicate(verb, g.evenly(verb.english), subject, tense)
    if g.chance(30):
        spanish, english = "a casa", "home"
    elif verb.infinitive == "venir":
        spanish, english = "aquí", "here"
    else:
        place = g.noun_phrase(["place"], "definite possessive demonstrative", plain=True)
        spanish, english = f"a {place.spanish}", f"to {place.english}"
    return g.sentence(subject, predicate.followed_by(english), spanish_tail=spanish)


def quality(g):
    """*Ella no es alta.*, *¿Está rota la silla?*"""
    of_person = g.chance(65)
    subject, kind = (g.actor(), "person") if of_person else (g.thing(), "thing")
    is_permanent = g.chance(50)
    forms, adjectives = (SER, PERMANENT) if is_permanent else (ESTAR, TEMPORARY)
    adjective = g.pick(adjectives[kind])
    english = g.evenly(adjective.english[subject.gender])
    spanish = agree(adjective.spanish, subject.gender, subject.is_plural)
    if adjective.spanish not in UNCHANGING and g.chance(18):
        degree, english_degree = g.pick((("muy", "very"), ("tan", "so"), ("demasiado", "too")))
        spanish, english = f"{degree} {spanish}", f"{english_degree} {english}"
    predicate = g.being(forms, subject, g.tense_of_being(), english)
    return g.sentence(subject, predicate, spanish_tail=spanish)


def identity(g):
    """*Soy médico.*, *Ella es mi mejor amiga.*, *Es un buen libro.*"""
    if g.chance(60):
        subject = g.pronoun() if g.chance(70) else g.name()
        nouns = [noun for noun in NOUNS["job"] if noun.gender == subject.gender]
        noun = g.pick(nouns)
        spanish = spanish_plural(noun.spanish) if subject.is_plural else noun.spanish
        english = g.evenly(noun.english)[subject.is_plural]
        english = english if subject.is_plural else with_article(english)
    else:
        noun = g.noun_phrase((*PEOPLE, *OBJECTS), "indefinite possessive demonstrative definite")
        spanish, english = noun.spanish, noun.english
        if noun.kind in ACTORS:
            pronouns = (("ellos", "they"), ("ellas", "they")) if noun.is_plural else (("él", "he"), ("ella", "she"))
            pronoun, english_pronoun = pronouns[noun.gender == "f"]
            pronoun = pronoun if g.chance(50) else ""
        elif noun.is_plural:
            pronoun, english_pronoun = "", "they"
        else:
            pronoun, english_pronoun = g.pick((("", "it"), ("esto", "this"), ("eso", "that")))
        subject = replace(noun, spanish=pronoun, english=english_pronoun, is_pronoun=True)
    predicate = g.being(SER, subject, g.tense_of_being(), english)
    return g.sentence(subject, predicate, spanish_tail=spanish)


def location(g):
    """*¿Están tus padres en casa?*, *El gato está en la cocina.*"""
    subject = g.actor() if g.chance(60) else g.thing()
    if g.chance(70):
        spanish, english = g.pick(words.PLACES)
    else:
        place = g.noun_phrase(["place", "vehicle"], "definite possessive", plain=True)
        spanish, english = f"en {place.spanish}", f"in {place.english}"
    predicate = g.being(ESTAR, subject, g.tense_of_being(), g.either(english))
    return g.sentence(subject, predicate, spanish_tail=spanish)


def origin(g):
    """*Soy de España.*"""
    subject = g.pronoun() if g.chance(70) else g.name()
    country, english = g.pick(words.COUNTRIES)
    predicate = g.being(SER, subject, "present", f"from {english}")
    return g.sentence(subject, predicate, spanish_tail=f"de {country}")


def having(g):
    """*No tengo hambre.*, *¿Cuántos años tienes?* is `counting`; *Tom tiene diez años.*"""
    subject, tense = g.actor(), g.tense_of_being()
    if g.chance(25):
        spanish, english = g.pick(words.AGES)
        spanish, english = f"{spanish} años", english + (" years old" if g.chance(30) else "")
    else:
        spanish, english = g.pick(words.HAVING)
        if g.chance(15) and spanish not in ("razón", "cuidado"):
            gender = "f" if spanish in ("hambre", "sed", "suerte", "prisa") else "m"
            spanish, english = join(agree("mucho", gender, False), spanish), f"very {english}"
    predicate = g.being(TENER.forms, subject, tense, g.either(english))
    return g.sentence(subject, predicate, spanish_tail=spanish)


def owner(g):
    """*El coche es mío.*, *¿Son tuyas?*"""
    subject = g.noun_phrase(OBJECTS[:3], "definite demonstrative", plain=True)
    if g.chance(40):
        subject = replace(subject, spanish="", english="they" if subject.is_plural else "it", is_pronoun=True)
    spanish, english = g.pick(
        (("mío", "mine"), ("tuyo", "yours"), ("suyo", "his|hers|yours|theirs"), ("nuestro", "ours"))
    )
    predicate = g.being(SER, subject, g.tense_of_being(), g.either(english))
    return g.sentence(subject, predicate, spanish_tail=agree(spanish, subject.gender, subject.is_plural))


def liking(g):
    """*Me gusta el café.*, *No le gustan los gatos.*: who likes is the object of the Spanish verb."""
    subject = g.pronoun() if g.chance(80) else g.name()
    stem, english_verb = g.weighted((("gust", LIKE), ("encant", LOVE)), (80, 20))
    is_past = g.chance(15)
    if g.chance(40):
        verb = g.pick([verb for verb in VERBS if verb.stands_alone])
        english = g.evenly(verb.english)
        tail, is_plural = verb.infinitive, False
        liked = join("to " + english.base if g.chance(50) else english.gerund, english.rest)
    else:
        kinds = ("liked", "drink", "fare", "food", "animal", "clothes", "place", "thing")
        phrase = g.noun_phrase(kinds, "definite possessive demonstrative", plain=True)
        tail, is_plural, liked = phrase.spanish, phrase.is_plural, phrase.english
        if (is_plural or phrase.kind in ("drink", "fare", "liked")) and g.chance(70):
            liked = liked.removeprefix("the ")  # English leaves out the article of things in general
    clitic = words.DATIVE_OF_PERSON[subject.person]
    who = {"yo": "mí", "tú": "ti"}.get(subject.spanish, subject.spanish)
    verb = stem + ("aba" if is_past else "a") + "n" * is_plural
    predicate = Predicate(verb, "", **with_do(english_verb, subject.english_person, is_past, liked))
    mood = g.weighted((PLAIN, NEGATED, QUESTION), (60, 22, 18))
    return g.sentence(replace(subject, spanish=who and f"a {who}"), predicate, mood, clitic, tail)


def aching(g):
    """*Me duele la cabeza.*, *Te duelen los pies.*"""
    part = g.noun_phrase(["body"], "definite", plain=True)
    person = g.rng.randrange(3)
    owner = ("my", "your", g.evenly(("his", "her")))[person]
    is_past = g.chance(20)
    verb = ("dolía" if is_past else "duele") + "n" * part.is_plural
    hurt = english_verb("hurt hurt hurt")
    subject = Phrase("", part.english.replace("the", owner, 1), part.person, part.english_person, part.gender)
    predicate = Predicate(verb, "", **with_do(hurt, part.english_person, is_past))
    return g.sentence(subject, predicate, None, words.DATIVE_OF_PERSON[person], part.spanish)


def naming(g):
    """*Me llamo Tom.*, *¿Cómo se llama él?*"""
    name, english_name, gender = g.evenly(words.NAMES)
    person = g.rng.randrange(3)
    whose = ("my", "your", "his" if gender == "m" else "her")[person]
    call = conjugate("llamar")["present"][person]
    if g.chance(30):
        return f"What's {whose} name?" if g.chance(
            60
        ) else f"What is {whose} name?", f"¿Cómo {words.REFLEXIVE[person]} {call}?"
    return f"{whose} name {g.either(' is|s')} {english_name}.", f"{words.REFLEXIVE[person]} {call} {name}."


def existence(g):
    """*Hay un perro aquí.*, *¿No había nadie?*"""
    noun = g.noun_phrase(("person", "animal", *OBJECTS, "stuff"), "indefinite number quantity bare")
    spanish, is_past = g.weighted((("hay", False), ("había", True), ("hubo", True)), (75, 18, 7))
    where, english_where = g.pick(words.PLACES) if g.chance(50) else ("", "")
    subject = Phrase("", "there", 2, noun.english_person, noun.gender, is_pronoun=True)
    predicate = Predicate(
        spanish, "", **with_auxiliary(be(noun.english_person, is_past), noun.english, g.either(english_where))
    )
    return g.sentence(subject, predicate, spanish_tail=join(noun.spanish, where))


def weather(g):
    """*Hace frío hoy.*, *¿Está lloviendo?*"""
    subject = Phrase("", "it", 2, 1, "m", is_pronoun=True)
    tense = g.weighted(("present", "preterite", "imperfect", "future", "progressive", "going"), (40, 15, 10, 15, 15, 5))
    if g.chance(50):
        verb = g.pick(WEATHER_VERBS)
        predicate, tail = g.predicate(verb, g.evenly(verb.english), subject, tense), ""
    else:
        tail, english = g.pick(words.WEATHER)
        tense = "present" if tense in ("progressive", "going") else tense
        predicate = g.being(HACER, subject, tense, english)
    adverb, english_adverb = g.adverb(tense, subject, words.TIMES)
    return g.sentence(subject, predicate.followed_by(english_adverb), spanish_tail=join(tail, adverb))


def counting(g):
    """*¿Cuántos hijos tienes?*, *¿Cuántas sillas hay?*"""
    if g.chance(10):
        subject = g.actor()
        auxiliary = be(subject.english_person)
        return (
            f"How old {auxiliary} {subject.english}?",
            f"¿{join('Cuántos años', TENER.forms['present'][subject.person], subject.spanish)}?",
        )
    noun = g.pick([noun for kind in TENER.objects for noun in NOUNS[kind] if not noun.is_mass])
    how_many = agree("cuánto", noun.gender, is_plural=True)
    spanish, english = (
        f"{how_many} {spanish_plural(noun.spanish)}",
        f"how many {g.evenly(noun.english)[1]}",
    )
    if g.chance(30):
        return f"{english} are there?", f"¿{spanish} hay?"
    subject = g.pronoun()
    predicate = g.predicate(TENER, HAVE_TO, subject, "present")
    return g.sentence(subject, predicate, QUESTION, ask=(spanish, english))


def whereabouts(g):
    """*¿Dónde están mis llaves?*, *¿Cómo está Tom?*, *¿De quién es este libro?*"""
    asked = g.weighted(("where", "how", "whose"), (65, 25, 10))
    if asked == "whose":
        noun = g.noun_phrase(OBJECTS, "demonstrative", plain=True)
        this, thing = noun.english.split(" ", 1)
        said = (
            f"whose {thing} {be(noun.english_person)} {this}?"
            if g.chance(70)
            else f"whose {be(noun.english_person)} {noun.english}?"
        )
        return said, f"¿De quién {SER['present'][noun.person]} {noun.spanish}?"
    subject = g.thing() if asked == "where" and g.chance(50) else g.actor()
    predicate = g.being(ESTAR, subject, g.tense_of_being(), "")
    return g.sentence(subject, predicate, QUESTION, ask=("dónde", "where") if asked == "where" else ("cómo", "how"))


def open_question(g):
    """*¿Por qué lloras?*, *¿Cuándo vuelve Tom?*, *¿Qué está comiendo?*"""
    ask = g.pick((("qué", "what"), ("por qué", "why"), ("dónde", "where"), ("cuándo", "when"), ("cómo", "how")))
    subject, tense = g.actor(), g.weighted(TENSES, TENSE_WEIGHTS)
    if not subject.can_be_negated:
        subject = g.pronoun()
    wanted = [verb for verb in VERBS if (verb.objects if ask[1] == "what" else verb.stands_alone)]
    verb = g.pick([verb for verb in wanted if not any(kind in PEOPLE for kind in verb.objects)])
    tense = "present" if verb.is_static and tense == "progressive" else tense
    predicate = g.predicate(verb, g.evenly(verb.english), subject, tense)
    mood = NEGATED_QUESTION if ask[1] == "why" and g.chance(35) else QUESTION
    return g.sentence(subject, predicate, mood, ask=ask)


def who(g):
    """*¿Quién rompió la ventana?*, *¿A quién viste?*"""
    tense = g.weighted(TENSES, TENSE_WEIGHTS)
    if g.chance(25):
        verb = g.pick(
            [verb for verb in VERBS if any(kind in PEOPLE for kind in verb.objects) and verb.infinitive != "tener"]
        )
        subject = g.pronoun()
        predicate = g.predicate(verb, g.evenly(verb.english), subject, "present" if verb.is_static else tense)
        return g.sentence(subject, predicate, QUESTION, ask=("a quién", g.either("who|whom")))
    verb = g.pick(VERBS)
    subject = Phrase("quién", "who", 2, 1, "m", can_be_negated=False)
    predicate = g.predicate(verb, g.evenly(verb.english), subject, "present" if verb.is_static else tense)
    tail, english = ("", "") if not verb.objects or (verb.stands_alone and g.chance(60)) else g.object(verb)
    english, spanish = g.sentence(subject, predicate.followed_by(english), PLAIN, spanish_tail=tail)
    return english[:-1] + "?", f"¿{spanish[:-1]}?"


def command(g):
    """*¡Abre la puerta!*, *No lo toques.*, *Siéntese, por favor.*"""
    verb = g.pick([verb for verb in VERBS if not verb.is_static] if g.chance(75) else REFLEXIVE_VERBS)
    english_verb = g.evenly(verb.english)
    person, address = g.weighted(((1, "tú"), (2, "usted"), (5, "ustedes"), (4, "vosotros")), (60, 24, 10, 6))
    is_negated = g.chance(28)
    clitic = tail = english = ""
    if verb in REFLEXIVE_VERBS:
        clitic = words.REFLEXIVE[person]
    elif not verb.stands_alone or (verb.objects and g.chance(40)):
        if g.chance(40) and "lang" not in verb.objects:
            clitic, english = g.accusative(verb, person)
            if english == "you":
                english = "him" if clitic == "lo" else "her" if clitic == "la" else "them"
        else:
            tail, english = g.object(verb) if verb.objects else ("", "")
    elif g.chance(40):
        tail, english = g.pick(words.COMMAND_ADVERBS)
        english = g.either(english)
    forms = verb.forms
    if is_negated or address not in ("tú", "vosotros"):
        spanish = forms["subjunctive"][person]
    else:
        spanish = forms["imperative" if address == "tú" else "imperative_plural"]
    if is_negated:
        spanish = join("no", clitic, spanish)
    elif clitic == "os":
        spanish = spanish[:-1] + "os"  # sentaos
    else:
        spanish += clitic
    english = join("don't" if is_negated else "", english_verb.base, english_verb.rest, english)
    spanish = join(spanish, tail)
    if g.chance(8):
        spanish, english = f"{spanish}, por favor", f"please {english}" if g.chance(50) else f"{english}, please"
    if g.chance(70):
        return english + ".", contract(spanish + ".")
    return english + "!", contract(f"¡{spanish}!")


def proposal(g):
    """*Vamos a comer.*, *Vámonos.*"""
    verb = g.pick([verb for verb in VERBS if not verb.is_static])
    english_verb = g.evenly(verb.english)
    tail, english = ("", "") if not verb.objects or (verb.stands_alone and g.chance(60)) else g.object(verb)
    end = g.either(".|.|!")
    opening = "¡" if end == "!" else ""
    return f"let's {join(english_verb.base, english_verb.rest, english)}{end}", contract(
        f"{opening}vamos a {verb.infinitive} {tail}".rstrip() + end
    )


def exclamation(g):
    """*¡Qué bonito!*, *¡Qué coche tan caro!*"""
    if g.chance(50):
        gender, is_plural = g.weighted((("m", False), ("f", False), ("m", True), ("f", True)), (60, 30, 5, 5))
        kind = g.evenly(("person", "thing"))
        adjective = g.pick((PERMANENT if g.chance(75) else TEMPORARY)[kind])
        if adjective.spanish in UNCHANGING:
            adjective = PERMANENT[kind][0]
        return (
            f"how {g.evenly(adjective.english[gender])}!",
            f"¡Qué {agree(adjective.spanish, gender, is_plural)}!",
        )
    noun = g.pick(NOUNS[g.pick(("person", "animal", *OBJECTS))])
    adjective = g.pick(PERMANENT["person" if noun.kind in ACTORS else "thing"])
    spanish, english = (
        agree(adjective.spanish, noun.gender, False),
        g.evenly(adjective.english[noun.gender]),
    )
    thing = g.evenly(noun.english)[0]
    said = join(english, thing) if noun.is_mass else with_article(join(english, thing))
    return f"what {said}!", f"¡Qué {noun.spanish} {g.either('tan|más')} {spanish}!"


def idiom(g):
    spanish, english = g.pick(words.IDIOMS)
    return g.either(english), spanish


KINDS = {  # kinds of sentence and how often each is drawn
    action: 300,
    quality: 130,
    command: 90,
    reflexive: 50,
    identity: 60,
    location: 50,
    liking: 45,
    giving: 45,
    open_question: 45,
    motion: 40,
    having: 40,
    who: 35,
    whereabouts: 30,
    existence: 35,
    indefinite_object: 30,
    exclamation: 25,
    owner: 20,
    proposal: 20,
    counting: 15,
    weather: 15,
    origin: 12,
    aching: 8,
    naming: 5,
    idiom: 5,
}


def draw(g):
    """One sentence as it is written, (english, spanish), of a kind drawn by `KINDS`; g: a `Grammar`."""
    return g.weighted(list(KINDS), list(KINDS.values()))(g)


def generate(max_length=text.EVAL_MAX_LENGTH, seed=SEED, n_pairs=N_PAIRS):
    """Distinct normalised pairs (english, spanish) with both sides shorter than `max_length`, as they were drawn.

    Whatever `max_length` is, the same sentences are drawn, until `n_pairs` of them are shorter than the handout's
    limit. So a larger `max_length` only adds longer pairs.
    """
    g = Grammar(seed)
    pairs, n_short = {}, 0  # a dict keeps the order
    while n_short < n_pairs:
        pair = tuple(map(text.normalize, draw(g)))
        if pair not in pairs:
            pairs[pair] = None
            n_short += max(map(len, pair)) < text.EVAL_MAX_LENGTH
    return text.shorter_than(pairs, max_length)
