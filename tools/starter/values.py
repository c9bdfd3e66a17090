"""Random values that questions carry: names, places, numbers, texts. All from a seeded generator."""
WORDS = """apple river stone garden window music paper silver mountain yellow bread lamp coffee winter summer bridge forest market
harbour island engine bottle camera candle carpet castle cheese cherry circle cloud cotton desert diamond dinner doctor dragon eagle
farmer feather finger flower football friend ginger glass gold grape guitar hammer honey horse hotel house jacket jungle kettle kitchen
ladder leather lemon letter library lion lunch machine magnet medicine melon meteor milk mirror monkey moon morning museum needle night
number ocean office onion orange oven painter palace pencil pepper piano picture pilot planet plastic pocket poem potato prince pumpkin
queen rabbit radio rain report ribbon rice ring road robot rocket rose salad salt sand school shadow ship shirt silk singer sister snow
soap soup spider spring square star station storm story street sugar sun table teacher temple tent theatre ticket tiger tomato tower
train tree trumpet tunnel turtle uncle valley vase village violin voice wagon wall water wheel whale wind wine wolf wood wool year zebra
accident answer army artist baby battle beach bell birthday blanket body book boy brain breakfast brother building bus butter cake card
cat chair chapter child church city class clock coast cook corner country cow cousin cup dance daughter day dog door dream dress earth
egg evening eye face family father field film fire fish floor food fruit game girl grass group hair hand hat head heart history hour
idea insect iron job journey judge juice key king knife lake land language law lawyer leaf leg lesson light line man map meal meat
meeting minute money month mother mouse mouth name neck nest news newspaper nose notebook nurse oil page party peace person phone plan
plant plate player police pot price problem project question race rent room school science sea season seat secret shoe shop shoulder
sky sleep smile snake society soldier son song sound space sport student subject test thing thunder time tool tooth town toy traffic
travel truck truth unit war week weekend weight wife window woman word work world writer yard young zoo ancient angry bitter blue brave
bright broken busy calm cheap clean clever cold cool dark deep dirty dry early easy empty fair famous fast fat fine flat fresh full
funny gentle good great green happy hard heavy high hollow hot huge hungry kind large late lazy little lonely long loud lovely low lucky
narrow new nice noisy old open pale plain polite poor proud purple quick quiet rare red rich round sad safe sharp short shy slow small
smooth soft sour strange strong sweet tall thick thin tired true ugly warm weak wet white wide wild wise wrong arrive ask bake begin
believe borrow bring build buy call carry catch change check choose climb close come cost count cry cut decide draw drink drive drop
eat enter fall feel fight find finish fly follow forget give grow hear help hide hold hope jump keep kick know laugh learn leave lend
listen live look lose love make meet miss move need offer order paint pass pay play pull push read remember rest ride rise run say sell
send sing sit speak spend stand start stay stop study swim take talk teach tell think throw touch try turn use visit wait walk want wash
watch wear win wish write about after again always because before behind between during every first from into last more most near never
next often only other over soon still through today together tomorrow tonight under until very with without yesterday budget invoice
deadline agenda contract summary draft review update backup release password database network keyboard screen server software
election president economy war religion physics chemistry biology geometry volcano dinosaur galaxy atom gravity climate novel opera
recipe pasta pizza curry noodle sandwich vaccine virus muscle disease marathon tennis chess olympic basketball hockey emperor empire
revolution philosophy psychology poetry grammar alphabet continent currency bitcoin stock tax mortgage insurance passport visa airport""".split()
CITIES = """Paris|London|Berlin|Madrid|Rome|Vienna|Oslo|Lisbon|Dublin|Athens|Cairo|Tokyo|Delhi|Sydney|Toronto|Chicago|Boston|Seattle|Denver|Dallas|Miami|Lima|Bogota|Santiago|Nairobi|Lagos|Accra|Mumbai|Bangkok|Hanoi|Manila|Jakarta|Seoul|Beijing|Shanghai|Osaka|Moscow|Warsaw|Prague|Budapest|Helsinki|Stockholm|Copenhagen|Brussels|Zurich|Geneva|Milan|Naples|Munich|Hamburg|Cologne|Lyon|Nice|Porto|Seville|Valencia|Glasgow|Leeds|Bristol|Cardiff|New York|Los Angeles|San Francisco|Rio de Janeiro|Buenos Aires|Cape Town|Hong Kong|Mexico City|Tel Aviv|Abu Dhabi|San Diego|Salt Lake City""".split("|")
PEOPLE = """Anna|Ben|Clara|David|Emma|Felix|Grace|Henry|Ida|Jonas|Karl|Laura|Max|Nina|Oscar|Paula|Robert|Sarah|Tom|Ursula|Victor|Wendy|Alice|Bob|Carol|Daniel|Eva|Frank|George|Hannah|Ivan|Julia|Kevin|Linda|Martin|Nora|Olivia|Peter|Rosa|Simon|Theo|Vera|Will|Zoe|Maria|James|John|Mike|Lisa|Kate|Steve|Ali|Omar|Fatima|Yuki|Chen|Priya|Raj""".split("|")
LANGUAGES = "German|French|Spanish|Italian|Dutch|Polish|Greek|Danish|Swedish|Finnish|Czech|Turkish|Arabic|Hindi|Korean|Thai|Latin|Hungarian|Romanian|English".split("|")
UNITS = "km|miles|meters|feet|inches|cm|kg|pounds|grams|ounces|liters|gallons|celsius|fahrenheit|kelvin|hours|minutes|seconds|days|yards|tons|pints|mm|knots|watts|joules|bytes|bits|acres".split("|")
CURRENCIES = "EUR|USD|GBP|JPY|CHF|CAD|AUD|SEK|NOK|INR|CNY|BRL|euros|dollars|pounds|yen|francs|rupees|pesos|crowns".split("|")
ROOMS = "kitchen|bedroom|bathroom|living room|hall|office|garage|garden|cellar|attic|dining room|study|nursery|balcony|terrace|corridor".split("|")
COLOURS = "red|blue|green|yellow|white|black|orange|purple|pink|brown|grey|gold|silver|violet".split("|")
DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|today|tomorrow|tonight|next Monday|next week|next Friday|this weekend|May 4|June 12|March 3|12 April|1 July".split("|")
ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fl gr kl pl pr sh st str th tr ch sk sn qu y".split()
VOWELS = "a e i o u a e i o u ai ea ee oo ou ia io".split()
CODAS = ["", "", "", "n", "r", "l", "s", "t", "k", "m", "x", "nd", "rt", "ck", "sh", "ng", "lp", "v", "z", "th"]


oddity = 1.0  # scales how often words, names and parameters are invented


def odd(rng, share):
    """True in `share` of all cases, fewer where things are to be usual."""
    return rng.random() < share * oddity


def made_up_word(rng, least=1, most=3):
    """A pronounceable word of `least` to `most` syllables, in lower case."""
    syllables = rng.randint(least, most)
    word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + (rng.choice(CODAS) if rng.random() < 0.6 else "") for _ in range(syllables))
    return word if len(word) > 2 else word + rng.choice("nrlst") + rng.choice("aeio")


def city(rng):
    if rng.random() < 0.3:
        return rng.choice(CITIES)
    name = made_up_word(rng, 2, 3).capitalize()
    shape = rng.random()
    if shape < 0.1:
        return rng.choice(["New", "San", "Saint", "Port", "Fort", "Bad", "Los", "Santa", "El", "North", "Upper", "Old"]) + " " + name
    return name + rng.choice(["", "", "", "burg", "ville", "ton", "stadt", "berg", "ford", "ham", "grad", "field", "land", "port", " City"])


def person(rng):
    first = rng.choice(PEOPLE) if rng.random() < 0.4 else made_up_word(rng, 1, 3).capitalize()
    return first


def full_name(rng):
    return person(rng) + (" " + made_up_word(rng, 1, 3).capitalize() if rng.random() < 0.5 else "")


def email(rng):
    name = person(rng).lower() if rng.random() < 0.6 else any_word(rng)
    if rng.random() < 0.5:
        name += rng.choice([".", ".", "_", "-", ""]) + (made_up_word(rng) if rng.random() < 0.6 else any_word(rng))
    if rng.random() < 0.2:
        name += str(rng.randint(1, 99))
    host = rng.choice(["example", "mail", "work", "post", "firm", any_word(rng), made_up_word(rng), made_up_word(rng), any_word(rng) + made_up_word(rng)])
    return f"{name}@{host}.{rng.choice(['com', 'org', 'net', 'de', 'io', 'eu', 'uk', 'fr', 'dev', 'co', 'ch', 'at', 'it', 'info', 'edu'])}"


def any_word(rng):
    return rng.choice(WORDS) if rng.random() < 1 - 0.45 * oddity else made_up_word(rng)


def phrase(rng, least=2, most=6):
    """Random words; sometimes with a capital, a number or a sign inside."""
    words = [any_word(rng) for _ in range(rng.randint(least, most))]
    if rng.random() < 0.3:
        words[0] = words[0].capitalize()
    if rng.random() < 0.12:
        words.insert(rng.randint(0, len(words)), str(rng.randint(0, 3000)))
    if rng.random() < 0.08:
        words[rng.randrange(len(words))] = person(rng)
    if rng.random() < 0.04 and len(words) > 1:
        words[0] += ","
    return " ".join(words)


def integer(rng):
    return rng.choice([rng.randint(0, 12), rng.randint(0, 100), rng.randint(0, 100), rng.randint(100, 9999), rng.randint(0, 60), -rng.randint(1, 50) if rng.random() < 0.4 else rng.randint(1, 999999)])


def small_integer(rng):
    return rng.choice([rng.randint(1, 12), rng.randint(1, 100)])


def number(rng):
    if rng.random() < 0.6:
        return integer(rng)
    return rng.randint(0, 5000) / rng.choice([10, 10, 100]) + 0.0 if rng.random() < 0.9 else 0.5


def date(rng):
    if rng.random() < 0.35:
        return f"20{rng.randint(20, 39)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    if rng.random() < 0.3:
        month = rng.choice("January February March April May June July August September October November December".split())
        return rng.choice([f"{month} {rng.randint(1, 30)}", f"{rng.randint(1, 30)} {month}"])
    return rng.choice(DAYS)


def clock(rng):
    return rng.choice([f"{rng.randint(0, 23)}:{rng.choice(['00', '15', '30', '45', f'{rng.randint(0, 59):02}'])}", f"{rng.randint(1, 12)} {rng.choice(['am', 'pm'])}", f"{rng.randint(1, 12)}{rng.choice(['am', 'pm'])}", f"{rng.randint(7, 22):02}:{rng.randint(0, 59):02}", "noon"])


def code(rng):
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.randint(2, 4)))
    return rng.choice([f"{letters}-{rng.randint(10, 9999)}", f"{letters}{rng.randint(1, 999)}", str(rng.randint(1000, 999999)), f"{made_up_word(rng)}-{rng.randint(1, 99)}"])


def symbol(rng):
    return rng.choice(["AAPL", "MSFT", "NVDA", "TSLA", "AMZN", "IBM", "SAP"]) if rng.random() < 0.2 else "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 5)))


EXTENSIONS = "txt md pdf csv json py log toml rs png jpg zip doc docx xml html yaml sql tar.gz mp3 cfg ini sh c xlsx gguf bak".split()


def filename(rng):
    stem = any_word(rng)
    dice = rng.random()
    if dice < 0.45:
        stem += rng.choice(["_", "_", "-", "", "."]) + rng.choice([any_word(rng), any_word(rng), str(rng.randint(1, 99)), str(rng.randint(2000, 2040)), "v" + str(rng.randint(1, 9))])
    elif dice < 0.65:
        stem += str(rng.randint(1, 999))
    if rng.random() < 0.12:
        stem = stem.capitalize()
    ending = rng.choice(EXTENSIONS) if rng.random() < 0.9 else "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 4)))
    return (rng.choice(["/", "~/", "./", "src/", "docs/"]) if rng.random() < 0.08 else "") + f"{stem}.{ending}"


def path(rng):
    parts = [any_word(rng) for _ in range(rng.randint(1, 3))]
    return rng.choice(["/", "/home/", "~/", "/tmp/", "/var/", "./", "", "/opt/", "/usr/", "/data/", "/mnt/", "/etc/"]) + "/".join(parts)


def url(rng):
    return f"https://{rng.choice(['', 'www.'])}{made_up_word(rng)}.{rng.choice(['com', 'org', 'net', 'io'])}{rng.choice(['', '/' + any_word(rng)])}"


def pick_of(text):
    options = text.split("|")
    return lambda rng: rng.choice(options)


def sometimes_odd(options):
    """Mostly one of `options`, sometimes a word nobody knows."""
    return lambda rng: rng.choice(options) if rng.random() < 0.75 else made_up_word(rng)
