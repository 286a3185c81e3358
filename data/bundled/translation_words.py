"""The words of the bundled data in place of the Tatoeba sentences, and how they inflect in Spanish and in English.

The tables list common words first, because the grammar picks the first ones more often. `|` stands between English
renderings among which the grammar chooses at random, a space between the forms of one word (`man men`,
`eat ate eaten`); forms that follow the rules are not listed. A grammatical person is a number: 0 yo, 1 tú, 2 él, ella
or usted, 3 nosotros, 4 vosotros, 5 ellos, ellas or ustedes.
"""

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
    callar: shut shut shut shutting ~up, fall fell fallen ~silent: :
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

# Spanish and English pronoun, person, gender ("" = either), how many of 100 leave it out in Spanish; common ones first.
PRONOUNS = (
    ("yo", "I", 0, "", 90),
    ("tú", "you", 1, "", 80),
    ("él", "he", 2, "m", 45),
    ("ella", "she", 2, "f", 45),
    ("nosotros", "we", 3, "m", 85),
    ("ellos", "they", 5, "m", 60),
    ("usted", "you", 2, "", 50),
    ("ustedes", "you", 5, "m", 60),
    ("ellas", "they", 5, "f", 60),
    ("vosotros", "you", 4, "m", 80),
    ("nosotras", "we", 3, "f", 60),
)
NAMES = (
    ("Tom", "Tom", "m"),
    ("María", "Mary", "f"),
    ("Juan", "John", "m"),
    ("Ana", "Ann", "f"),
    ("Pablo", "Paul", "m"),
)
INDEFINITE_SUBJECTS = (
    ("nadie", "nobody|no one", 2),
    ("todos", "everyone|everybody", 5),
    ("alguien", "someone|somebody", 2),
)
# Clitic -> person it stands for and its English, of people (lo and la also stand for usted) and of things.
ACCUSATIVE = {
    "lo": (2, "him|him|you"), "me": (0, "me"), "te": (1, "you"), "la": (2, "her|her|you"), "los": (5, "them|them|you"),
    "nos": (3, "us"), "las": (5, "them"), "os": (4, "you"),
}  # fmt: skip
ACCUSATIVE_THINGS = {"lo": "it", "la": "it", "los": "them", "las": "them"}
DATIVE = {
    "me": (0, "me"),
    "te": (1, "you"),
    "le": (2, "him|her|you"),
    "nos": (3, "us"),
    "les": (5, "them|you"),
    "os": (4, "you"),
}
REFLEXIVE = ("me", "te", "se", "nos", "os", "se")
DATIVE_OF_PERSON = ("me", "te", "le", "nos", "os", "les")
POSSESSIVES = (("mi", "my"), ("tu", "your"), ("su", "his|her|their|your"), ("nuestro", "our"), ("vuestro", "your"))
DEMONSTRATIVES = (("este", "this", "these"), ("ese", "that", "those"), ("aquel", "that", "those"))
NUMBERS = (
    ("dos", "two"), ("tres", "three"), ("cuatro", "four"), ("cinco", "five"), ("seis", "six"), ("diez", "ten"),
    ("ocho", "eight"), ("siete", "seven"), ("nueve", "nine"), ("doce", "twelve"), ("once", "eleven"), ("cien", "a hundred"),
)  # fmt: skip
AGES = (*NUMBERS[:-1], ("trece", "thirteen"), ("veinte", "twenty"), ("treinta", "thirty"), ("quince", "fifteen"))

# Spanish, English, tenses that it goes with (none = all); "@" marks what agrees with the subject.
ADVERBS = (
    ("aquí", "here", ()), ("hoy", "today", ()), ("ahora", "now|right now", ("present", "going", "progressive")),
    ("bien", "well", ("present", "preterite", "imperfect")), ("mucho", "a lot", ("present", "preterite", "imperfect")),
    ("mañana", "tomorrow", ("present", "future", "going")), ("ayer", "yesterday", ("preterite", "imperfect")),
    ("allí", "there", ()), ("solo@", "alone", ()), ("en casa", "at home", ()), ("conmigo", "with me", ()),
    ("tarde", "late", ()), ("otra vez", "again", ()), ("contigo", "with you", ()), ("temprano", "early", ()),
    ("con Tom", "with Tom", ()), ("fuera", "outside", ()), ("rápido", "fast|quickly", ()), ("demasiado", "too much", ()),
    ("mal", "badly", ("present", "preterite", "imperfect")), ("anoche", "last night", ("preterite",)),
    ("juntos@", "together", ()), ("despacio", "slowly", ()),
)  # fmt: skip
TIMES = {"hoy", "ahora", "mañana", "ayer", "aquí", "otra vez", "anoche"}  # adverbs that follow an object as well
FREQUENCIES = (("nunca", "never"), ("siempre", "always"), ("ya", "already"), ("casi", "almost|nearly"))
PLACES = (("aquí", "here"), ("en casa", "at home|home"), ("allí", "there"), ("cerca", "near|close|nearby"), ("lejos", "far away|far"),
          ("fuera", "outside|out"), ("dentro", "inside"), ("arriba", "upstairs"), ("en la cama", "in bed"), ("ahí", "there"))  # fmt: skip
COUNTRIES = (("España", "Spain"), ("Francia", "France"), ("México", "Mexico"), ("Italia", "Italy"), ("Japón", "Japan"),
             ("Chile", "Chile"), ("Perú", "Peru"), ("Rusia", "Russia"), ("Cuba", "Cuba"), ("China", "China"), ("Brasil", "Brazil"))  # fmt: skip
HAVING = (  # what Spanish has and English is
    ("hambre", "hungry"), ("razón", "right"), ("miedo", "afraid|scared"), ("frío", "cold"), ("sed", "thirsty"),
    ("sueño", "sleepy|tired"), ("calor", "hot"), ("suerte", "lucky"), ("prisa", "in a hurry"), ("cuidado", "careful"),
    ("celos", "jealous"),
)  # fmt: skip
WEATHER = (("frío", "cold"), ("calor", "hot"), ("sol", "sunny"), ("viento", "windy"), ("buen tiempo", "nice"))
IDIOMS = (
    ("¡Gracias!", "Thanks!|Thank you!"), ("Muchas gracias.", "Thanks a lot.|Thank you."), ("De nada.", "You're welcome."),
    ("¡Hola!", "Hi!|Hello!"), ("Adiós.", "Bye.|Goodbye."), ("Hasta luego.", "See you later.|Goodbye."), ("Por supuesto.", "Of course.|Sure."),
    ("Hasta mañana.", "See you tomorrow."), ("Lo siento.", "I'm sorry.|Sorry."), ("¿Qué hora es?", "What time is it?"), ("Claro que sí.", "Of course."),
    ("Buenos días.", "Good morning."), ("Buenas noches.", "Good night.|Good evening."), ("¿Qué pasa?", "What's up?|What's going on?"),
    ("No importa.", "It doesn't matter.|Never mind."), ("Soy yo.", "It's me."), ("Está bien.", "It's OK.|All right."), ("No pasa nada.", "It's okay."),
    ("¿Qué pasó?", "What happened?"), ("De acuerdo.", "OK.|Agreed."), ("Tal vez.", "Maybe.|Perhaps."), ("Quizás.", "Maybe.|Perhaps."),
    ("¡Salud!", "Cheers!|Bless you!"), ("¡Feliz cumpleaños!", "Happy birthday!"), ("¡Buena suerte!", "Good luck!"), ("¡Buen viaje!", "Have a nice trip!"),
    ("Vale.", "OK.|Okay."), ("¿En serio?", "Really?|Seriously?"), ("¿De verdad?", "Really?"), ("Ya voy.", "I'm coming."), ("Por favor.", "Please."),
)  # fmt: skip

COMMAND_ADVERBS = (
    ("aquí", "here"), ("ahora", "now"), ("conmigo", "with me"), ("otra vez", "again"), ("rápido", "fast|quickly"),
    ("más", "more"), ("bien", "well"),
)  # fmt: skip
