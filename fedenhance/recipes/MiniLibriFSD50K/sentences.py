"""Sentences for the synthetic speakers: a small grammar over a varied vocabulary.

The words are common ones, so that the transcripts serve a small recogniser too.
"""


def _phrases(text):
    """Phrases, with a bar or the end of a line between two."""
    return text.strip().replace("\n", "|").split("|")


SUBJECTS = """baker sailor farmer teacher doctor painter widow captain student miller
shepherd gardener merchant soldier singer tailor hunter neighbour stranger child
grandmother brother daughter cousin judge porter clerk nurse weaver carpenter
fisherman postman poet cook driver printer pilot dancer lawyer librarian""".split()
ANIMALS = """horse dog fox heron goat swallow donkey rabbit cat raven mule otter
sparrow bull hedgehog goose""".split()
ADJECTIVES = """young old quiet tired cheerful patient clever stubborn careful gentle
proud hungry curious weary lonely honest foolish famous sleepy brave nervous pale
merry thoughtful ragged polite""".split()
OBJECTS = """basket lantern letter ladder kettle coat wagon bottle blanket mirror hammer
bucket clock book chair candle map rope barrel window apple cheese ribbon sack
violin shovel bridge button pillow jacket newspaper umbrella feather penny stone
carpet treasure engine suitcase teapot""".split()
QUALITIES = """heavy broken wooden silver empty little yellow dusty round narrow bright
crooked golden wet cold ancient useful borrowed purple shallow painted sharp soft
smooth enormous rusty green expensive""".split()
VERBS = """carried found repaired dropped borrowed polished hid sold noticed measured
bought painted lifted followed forgot promised watched opened examined described
covered chose returned stole admired emptied brought pushed wrapped shook""".split()
MOVES = """walked hurried wandered travelled stumbled returned waited stood slept sang
whistled laughed argued rested vanished marched knelt listened worked shivered
paused turned climbed danced""".split()
PLACES = """river garden village market forest harbour kitchen mountain valley church
station meadow castle orchard bridge shore stable library tower road island
schoolhouse cellar hill field gate fountain bakery mill lake""".split()
PREPOSITIONS = """along behind near beyond toward across beside under past through
outside""".split()
TIMES = _phrases("""
in the morning|before breakfast|after the storm|late in the evening|at noon
on Thursday|during the winter|for seven days|without a word|at last|once again
before the others came|in early spring|as usual|just after midnight|every summer
when the bells rang|until the light was gone|with great care|in less than an hour
""")
OPENINGS = _phrases("""
Nobody knew why|It was said that|Perhaps|Everyone agreed that|Long ago
I remember how|They told me that|We were surprised that|Of course|As far as I know
The truth is that|By then|You may have heard that|She often wrote that
""")
JOINERS = "and but so while because although for yet until".split()
REMARKS = _phrases("""
nothing could be done|the weather changed|nobody said anything more
the fire was almost out|all of us were grateful|there was no time to lose
the price was far too high|it made a very strange noise|we could see the whole coast
the answer was simple enough|both of them began to smile|I should have guessed it
the children asked for more|snow covered every roof|his hands were shaking
her voice was calm and clear|that was the end of the matter
such a thing had never happened before|the train was already leaving
""")


def sentence(rng):
    """Draw one sentence.

    Arguments
    ---------
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    str
        A sentence of about 6 to 24 words, with its punctuation.
    """

    def pick(words):
        return words[rng.integers(len(words))]

    def being():
        if rng.random() < 0.2:
            return f"the {pick(ANIMALS)}"
        return f"the {pick(ADJECTIVES)} {pick(SUBJECTS)}"

    def thing():
        article = pick(("the", "her", "his", "their", "this", "my", "another"))
        return f"{article} {pick(QUALITIES)} {pick(OBJECTS)}"

    def where():
        return f"{pick(PREPOSITIONS)} the {pick(PLACES)}"

    def clause():
        form = rng.integers(4)
        if form == 0:
            return f"{being()} {pick(VERBS)} {thing()}"
        if form == 1:
            return f"{being()} {pick(MOVES)} {where()}"
        if form == 2:
            return f"{being()} {pick(VERBS)} {thing()} {where()}"
        return f"{thing()} was lying {where()}"

    text = clause()
    if rng.random() < 0.35:
        text = f"{pick(OPENINGS)} {text}"
    if rng.random() < 0.4:
        text = f"{text} {pick(TIMES)}"
    if rng.random() < 0.45:
        ending = clause() if rng.random() < 0.5 else pick(REMARKS)
        text = f"{text}, {pick(JOINERS)} {ending}"
    return text[0].upper() + text[1:] + "."


def transcript(text):
    """Turn a text into LibriSpeech's form: upper-case words, no punctuation.

    Example
    -------
    >>> transcript("At last, the fox slept.")
    'AT LAST THE FOX SLEPT'
    """
    kept = (c if c.isalnum() or c in "' " else " " for c in text.upper())
    return " ".join("".join(kept).split())
