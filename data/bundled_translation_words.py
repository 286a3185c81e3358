"""The words of the bundled twin of the Tatoeba sentences, and how they inflect in Spanish and in English.

The tables list common words first, because the grammar picks the first ones more often. `|` stands between English
renderings among which the grammar chooses at random, a space between the forms of one word (`man men`,
`eat ate eaten`); forms that follow the rules are not listed. A grammatical person is a number: 0 yo, 1 tú, 2 él, ella
or usted, 3 nosotros, 4 vosotros, 5 ellos, ellas or ustedes.
"""

import re
from dataclasses import dataclass

N_PERSONS = 6

# Class of meaning -> "Spanish gender English" for each noun. Verbs choose their objects by class.
NOUNS = {
    "person": """
        hombre m man men, mujer f woman women, niño m boy|child children|kid, amigo m friend, niña f girl|child children,
        chico m boy|guy, chica f girl, amiga f friend, bebé m baby, vecino m neighbor, vecina f neighbor,
        policía m cop|policeman policemen, señor m man men|gentleman gentlemen, señora f lady, ladrón m thief thieves,
        rey m king, reina f queen, testigo m witness, héroe m hero, bruja f witch""",
    "kin": """
        padre m father|dad, madre f mother|mom, hermano m brother, hermana f sister, hijo m son|kid|child children,
        hija f daughter, esposa f wife wives, marido m husband, novia f girlfriend, novio m boyfriend, tío m uncle,
        tía f aunt, primo m cousin, prima f cousin, abuelo m grandpa, abuela f grandma, mujer f wife wives""",
    "job": """
        médico m doctor, profesor m teacher, profesora f teacher, jefe m boss, jefa f boss, alumno m student,
        alumna f student, abogado m lawyer, abogada f lawyer, actor m actor, actriz f actress, cantante m singer,
        enfermera f nurse, soldado m soldier, pintor m painter, pintora f painter, juez m judge, cocinero m cook,
        cocinera f cook, escritor m writer, escritora f writer, granjero m farmer, poeta m poet, espía m spy,
        espía f spy, doctora f doctor, médica f doctor, camarero m waiter, piloto m pilot""",
    "animal": """
        perro m dog, gato m cat, caballo m horse, pájaro m bird, vaca f cow, gata f cat, perra f dog, conejo m rabbit,
        oso m bear, ratón m mouse mice, lobo m wolf wolves, cerdo m pig, pato m duck, gallina f hen, oveja f sheep sheep,
        mono m monkey, león m lion, tigre m tiger, pez m fish fish, araña f spider, rana f frog""",
    "text": """
        libro m book, carta f letter, periódico m newspaper|paper, cuento m story, mensaje m message, revista f magazine,
        poema m poem, nota f note, novela f novel, informe m report, diario m diary""",
    "openable": """
        puerta f door, ventana f window, caja f box, botella f bottle, bolsa f bag, maleta f suitcase, regalo m gift|present,
        sobre m envelope, cajón m drawer""",
    "thing": """
        llave f key, foto f photo|picture, mesa f table, silla f chair, cama f bed, reloj m watch|clock, teléfono m phone,
        cámara f camera, mapa m map, flor f flower, cuchillo m knife knives, taza f cup, plato m plate|dish, vaso m glass,
        lápiz m pencil, radio f radio, lámpara f lamp, pelota f ball, juguete m toy, espejo m mirror, moneda f coin,
        cuadro m picture|painting, ordenador m computer, computadora f computer, bolso m bag|purse, paraguas m umbrella,
        cuaderno m notebook, pistola f gun, cuerda f rope, vela f candle, piedra f stone|rock,
        muñeca f doll, sofá m sofa, hoja f leaf leaves, martillo m hammer""",
    "vehicle": """
        coche m car, tren m train, carro m car, autobús m bus, barco m boat|ship, avión m plane, bicicleta f bicycle|bike,
        auto m car, taxi m taxi|cab, bici f bike, camión m truck, moto f motorcycle""",
    "clothes": """
        zapato m shoe, camisa f shirt, abrigo m coat, sombrero m hat, vestido m dress, falda f skirt, guante m glove,
        corbata f tie, chaqueta f jacket, anillo m ring, gorra f cap, bufanda f scarf scarves, suéter m sweater,
        bota f boot, cinturón m belt, traje m suit""",
    "food": """
        manzana f apple, huevo m egg, pastel m cake|pie, naranja f orange, galleta f cookie, patata f potato,
        papa f potato, tomate m tomato, ensalada f salad, pera f pear, sopa f soup, plátano m banana, limón m lemon,
        uva f grape, cebolla f onion, fresa f strawberry, pimiento m pepper, hamburguesa f burger""",
    "fare": """
        pan m bread -, carne f meat -, pescado m fish -, arroz m rice -, queso m cheese -, pollo m chicken -, fruta f fruit -,
        azúcar m sugar -, sal f salt -, comida f food -, mantequilla f butter -, chocolate m chocolate -, jamón m ham -,
        pasta f pasta -, miel f honey -, helado m ice_cream -, cena f dinner -""",
    "drink": """
        agua f water -, café m coffee -, leche f milk -, vino m wine -, cerveza f beer -, té m tea -, zumo m juice -,
        jugo m juice -, sidra f cider -""",
    "place": """
        casa f house|home, parque m park, escuela f school, ciudad f city|town, tienda f store|shop, hotel m hotel,
        banco m bank, playa f beach, calle f street, cocina f kitchen, jardín m garden|yard, habitación f room,
        cuarto m room, iglesia f church, oficina f office, hospital m hospital, río m river, mar m sea, bosque m forest,
        pueblo m village|town, estación f station, biblioteca f library, mercado m market, puente m bridge, museo m museum,
        isla f island, lago m lake, montaña f mountain, piso m apartment|floor, cárcel f jail, torre f tower, granja f farm,
        teatro m theater, colegio m school, baño m bathroom, castillo m castle""",
    "made": """
        lista f list, plan m plan, error m mistake, ruido m noise, promesa f promise, pastel m cake, fiesta f party""",
    "matter": """
        problema m problem, verdad f truth -, idea f idea, nombre m name, trabajo m job|work, respuesta f answer,
        pregunta f question, historia f story, secreto m secret, canción f song, juego m game, palabra f word,
        sueño m dream, examen m exam|test, película f movie|film, número m number, clase f class, mentira f lie,
        dibujo m drawing, razón f reason, cuenta f bill, viaje m trip, guerra f war, regla f rule, oferta f offer,
        chiste m joke, sistema m system, idioma m language, lección f lesson, día m day, vida f life lives""",
    "screen": "película f movie|film, partido m game|match, programa m show, tele f TV -, serie f series series",
    "game": "tenis m tennis -, fútbol m soccer -, ajedrez m chess -, golf m golf -, póquer m poker -",
    "instrument": "piano m piano, guitarra f guitar, violín m violin, flauta f flute, tambor m drum",
    "song": "canción f song, himno m anthem",
    "stuff": "dinero m money -, ayuda f help -, tiempo m time -, música f music -, suerte f luck -, papel m paper -, ropa f clothes -",
    "body": """
        mano f hand, cabeza f head, pie m foot feet, ojo m eye, pelo m hair -, brazo m arm, pierna f leg, cara f face,
        diente m tooth teeth, nariz f nose, espalda f back, oreja f ear, rodilla f knee, boca f mouth, dedo m finger""",
    "truth": "verdad f truth -, mentira f lie, secreto m secret, nombre m name",
    "lang": "inglés m English -, español m Spanish -, francés m French -, alemán m German -, ruso m Russian -, chino m Chinese -",
    "liked": "música f music -, arte m art -, nieve f snow -, lluvia f rain -, invierno m winter -, verano m summer -, mar m sea",
}  # fmt: skip

# Of people and animals, then of things: "Spanish English", the English of a man and of a woman parted by "~".
PERMANENT = {
    "person": """
        alto tall, joven young, viejo old, bueno good|nice, malo bad|mean, guapo handsome~pretty, feliz happy, rico rich,
        pobre poor, fuerte strong, amable kind|nice, listo smart|clever, tonto stupid|silly, gordo fat, famoso famous,
        tímido shy, raro strange|weird, feo ugly, inteligente smart|intelligent, débil weak, rápido fast|quick, lento slow,
        perezoso lazy, valiente brave, delgado thin, divertido fun|funny, aburrido boring, español Spanish, inglés English,
        francés French, alemán German, bajo short, ciego blind, sordo deaf, honesto honest, egoísta selfish, mayor old,
        normal normal, sabio wise, cruel cruel, bonito pretty, calvo bald, serio serious, terco stubborn, ruso Russian,
        generoso generous, educado polite, peligroso dangerous, útil useful""",
    "thing": """
        grande big|large, nuevo new, pequeño small|little, bueno good, viejo old, bonito pretty|nice|beautiful, caro expensive,
        barato cheap, rojo red, blanco white, negro black, fácil easy, difícil hard|difficult, malo bad, largo long,
        corto short, verde green, azul blue, importante important, raro strange|odd, feo ugly, útil useful, pesado heavy,
        perfecto perfect, aburrido boring, extraño strange, amarillo yellow, interesante interesting, falso false|fake,
        diferente different, ligero light, horrible awful|horrible, gris gray, simple simple, moderno modern,
        posible possible, lento slow, rápido fast|quick, peligroso dangerous""",
}  # fmt: skip
TEMPORARY = {
    "person": """
        cansado tired, enfermo sick|ill, contento happy|glad, triste sad, solo alone, ocupado busy, listo ready, loco crazy,
        borracho drunk, enojado angry|mad, enfadado angry|mad, perdido lost, muerto dead, vivo alive, seguro sure,
        aburrido bored, casado married, nervioso nervous, preocupado worried, despierto awake, dormido asleep,
        herido hurt|wounded, bien fine|okay|well, sentado sitting, sano healthy, libre free, celoso jealous, mejor better,
        orgulloso proud, sorprendido surprised, atrapado trapped, mal bad|sick, guapo handsome~pretty, sobrio sober,
        tranquilo calm, mojado wet, a_salvo safe, de_vuelta back, de_pie standing""",
    "thing": """
        roto broken, abierto open, cerrado closed|shut, limpio clean, sucio dirty, lleno full, vacío empty, caliente hot|warm,
        frío cold, mojado wet, seco dry, listo ready, rico delicious|good, perdido lost, bien fine|okay, muerto dead,
        oscuro dark, libre free, mal wrong""",
}
PRENOMINAL = {"bueno": "buen", "malo": "mal", "grande": "gran"}  # also stand before the noun, short before a singular

# "infinitive: English: irregular Spanish: classes of objects". `alone` = needs no object, `static` = no progressive,
# `~` opens words that stay behind the English verb. Stem changes are written `o>ue`, see `spanish_forms`.
VERBS = """
    tener: have had had: e>ie yo=tengo pret=tuv fut=tendr tu=ten: static kin animal vehicle thing matter stuff text place
    querer: want: e>ie pret=quis fut=querr: static thing food drink fare animal stuff vehicle
    comer: eat ate eaten: : alone food fare
    ver: see saw seen: : static person kin animal screen place job thing vehicle
    hablar: speak spoke spoken, talk: : alone
    hablar: speak spoke spoken: : lang
    leer: read read read: : alone text
    necesitar: need: : static thing stuff drink person job
    trabajar: work: : alone
    conocer: know knew known, meet met met: yo=conozco: static person kin job place
    saber: know knew known: pret=sup fut=sabr yo=sé: static lang
    dormir: sleep slept slept: o>ue: alone
    comprar: buy bought bought: : thing clothes food vehicle text fare
    beber: drink drank drunk: : alone drink
    tomar: drink drank drunk, have had had: : drink
    tomar: take took taken: : vehicle
    querer: love: e>ie pret=quis fut=querr: static kin person animal
    ayudar: help: : alone person kin job
    abrir: open: part=abierto: openable text
    cerrar: close, shut shut shut shutting: e>ie: openable
    correr: run ran run running: : alone
    vivir: live: : alone
    escribir: write wrote written: part=escrito: alone text
    ganar: win won won winning: : alone screen
    perder: lose lost lost: e>ie: alone thing stuff clothes
    salir: leave left left, go went gone ~out: yo=salgo fut=saldr tu=sal: alone
    venir: come came come: e>ie yo=vengo pret=vin fut=vendr tu=ven: alone
    llegar: arrive, come came come: : alone
    volver: come came come ~back, return: o>ue part=vuelto: alone
    hacer: make made made: yo=hago pret=hic fut=har part=hecho tu=haz: made
    encontrar: find found found: o>ue: thing stuff animal person
    buscar: look ~for: : thing stuff person job animal
    esperar: wait: : alone
    esperar: wait ~for: : person kin vehicle
    mirar: look ~at, watch: : person screen thing
    oír: hear heard heard: : static person animal song
    escuchar: listen ~to: : stuff song person
    cantar: sing sang sung: : alone song
    bailar: dance: : alone
    llorar: cry: : alone
    nadar: swim swam swum swimming: : alone
    jugar: play: u>ue: alone
    estudiar: study: : alone lang
    aprender: learn: : alone lang
    enseñar: teach taught taught: : lang
    enseñar: show showed shown: : thing text place
    entender: understand understood understood: e>ie: static alone lang matter
    comprender: understand understood understood: : static alone matter
    pensar: think thought thought: e>ie: alone
    odiar: hate: : static person matter fare drink animal
    amar: love: : static person kin
    llamar: call: : alone person kin job
    besar: kiss: : person kin
    matar: kill: : person animal
    llevar: wear wore worn: : clothes
    llevar: take took taken, carry: : thing openable
    traer: bring brought brought: yo=traigo pret=traj: thing food drink
    vender: sell sold sold: : vehicle thing animal place
    romper: break broke broken: part=roto: thing openable
    limpiar: clean: : place clothes thing
    lavar: wash: : clothes vehicle body
    usar: use: : thing vehicle
    conducir: drive drove driven: yo=conduzco pret=conduj: alone vehicle
    manejar: drive drove driven: : alone vehicle
    pagar: pay paid paid: : alone
    pintar: paint: : alone openable
    cocinar: cook: : alone fare
    fumar: smoke: : alone
    mentir: lie lied lied lying: e>ie: alone
    gritar: shout, scream, yell: : alone
    caminar: walk: : alone
    viajar: travel: : alone
    morir: die died died dying: o>ue part=muerto: alone
    caer: fall fell fallen: yo=caigo: alone
    dejar: leave left left: : place thing
    olvidar: forget forgot forgotten forgetting: : thing matter
    recordar: remember: o>ue: static person matter
    robar: steal stole stolen: : alone thing vehicle stuff
    esconder: hide hid hidden hiding: : thing stuff
    cortar: cut cut cut cutting: : fare food thing
    pedir: order, ask ~for: e>i: drink food fare stuff
    seguir: follow: e>i yo=sigo: person animal vehicle
    empezar: start, begin began begun beginning: e>ie: alone
    terminar: finish: : alone text
    prometer: promise: : alone
    preferir: prefer preferred preferred preferring: e>ie: static drink fare
    visitar: visit: : person kin place
    arreglar: fix: : vehicle thing
    extrañar: miss: : static person kin
    invitar: invite: : person
    tocar: touch: : thing animal
    tocar: play: : instrument
    luchar: fight fought fought: : alone
    cazar: hunt: : alone animal
    contar: tell told told: o>ue: text
    contar: count: o>ue: alone
    decir: tell told told: e>i yo=digo pret=dij fut=dir part=dicho tu=di: truth
    creer: believe: : static person kin
    temer: fear: : static person animal
    saltar: jump: : alone
    subir: go went gone ~up, climb: : alone
    bajar: go went gone ~down: : alone
    entrar: come came come ~in, enter: : alone
    cambiar: change: : alone
    mirar: look: : alone
    cuidar: take took taken ~care of: : animal person
    rezar: pray: : alone
    cruzar: cross: : place
    quemar: burn: : text thing
    tirar: throw threw thrown: : thing
    vestir: dress: e>i: person
    disparar: shoot shot shot: : alone
    respirar: breathe: : alone
    soñar: dream: o>ue: alone
"""
REFLEXIVE_VERBS = """
    ir: leave left left, go went gone ~away: :
    levantar: get got gotten getting ~up, stand stood stood ~up: :
    sentar: sit sat sat sitting ~down: e>ie:
    acostar: go went gone ~to bed: o>ue:
    despertar: wake woke woken ~up: e>ie:
    quedar: stay: :
    callar: shut shut shut shutting ~up, be was been ~quiet: :
    casar: get got gotten getting ~married: :
    caer: fall fell fallen, fall fell fallen ~down: yo=caigo:
    lavar: wash: :
    preocupar: worry: :
    perder: get got gotten getting ~lost: e>ie:
    divertir: have had had ~fun: e>ie:
    quejar: complain: :
    mover: move: o>ue:
    rendir: give gave given ~up: e>i:
    esconder: hide hid hidden: :
    duchar: take took taken ~a shower: :
    enojar: get got gotten getting ~angry: :
    mudar: move: :
    desmayar: faint: :
    resfriar: catch caught caught ~a cold: :
    vestir: get got gotten getting ~dressed: e>i:
    dormir: fall fell fallen ~asleep: o>ue:
    acercar: come came come ~closer: :
"""
DATIVE_VERBS = """
    dar: give gave given: : thing food drink stuff text
    decir: tell told told: e>i yo=digo pret=dij fut=dir part=dicho tu=di: truth
    mostrar: show showed shown: o>ue: thing text
    comprar: buy bought bought: : thing clothes drink
    traer: bring brought brought: yo=traigo pret=traj: thing food drink
    prestar: lend lent lent: : vehicle thing text stuff
    escribir: write wrote written: part=escrito: text
    mandar: send sent sent: : text
    enviar: send sent sent: : text
    contar: tell told told: o>ue: truth
    pagar: pay paid paid: : alone
    vender: sell sold sold: : vehicle thing
    robar: steal stole stolen: :
"""
WEATHER_VERBS = """
    llover: rain: o>ue:
    nevar: snow: e>ie:
"""
MOTION_VERBS = """
    ir: go went gone: :
    volver: go went gone ~back, come came come ~back, return: o>ue part=vuelto:
    venir: come came come: e>ie yo=vengo pret=vin fut=vendr tu=ven:
    correr: run ran run running: :
    llegar: get got gotten getting: :
    caminar: walk: :
"""

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
