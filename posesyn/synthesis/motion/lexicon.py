"""Words of human action and which of them mean about the same. Written for posesyn."""

from __future__ import annotations

import re

# One entry per concept, first its name; indented lines go on. A word belongs to every concept that lists it.
_CONCEPTS = """
walk: walk walks walking walked stroll strolls strolling stride strides striding step steps stepping pace paces
    march marches marching wander wanders wandering
run: run runs running jog jogs jogging sprint sprints sprinting dash dashes race races fast
jump: jump jumps jumping jumped hop hops hopping leap leaps leaping bounce bounces bound bounds vault vaults skip
    skips
dance: dance dances dancing dancer dancers ballet salsa pirouette arabesque jete choreography waltz tango charleston
    groove grooves
ballet: ballet pirouette arabesque jete attitude passe coupe glissade plie ballerina
salsa: salsa latin mambo
spin: spin spins spinning turn turns turning twirl twirls rotate rotates rotating whirl whirls pirouette
kick: kick kicks kicking kicked
punch: punch punches punching box boxes boxing boxer strike strikes striking jab jabs hit hits
martial: karate martial kungfu taichi tai chi fight fights fighting fighter combat sword swordplay fencing kata
    taekwondo judo boxing kick punch
climb: climb climbs climbing climber climbed ladder ladders stairs staircase upstairs
hang: hang hangs hanging dangle dangles swing swings swinging bar
gymnastics: gymnastics gymnast gymnasts cartwheel cartwheels handstand somersault flip flips acrobatics acrobat
    acrobatic handspring
balance: balance balances balancing tiptoe
crouch: crouch crouches crouching squat squats squatting kneel kneels kneeling duck ducks ducking crawl crawls
    crawling
bend: bend bends bending bent bow bows bowing stoop stoops lean leans leaning
sit: sit sits sitting seat seated chair stool sofa bench
stand: stand stands standing stood still idle rise rises
throw: throw throws throwing toss tosses pitch pitches hurl hurls
catch: catch catches catching
ball: ball balls basketball football soccer volleyball baseball dribble dribbles dribbling
sport: golf tennis basketball football soccer baseball hockey sport sports club racket
lift: lift lifts lifting raise raises raising pick picks grab grabs carry carries
arm: arm arms elbow elbows hand hands shoulder shoulders
leg: leg legs knee knees foot feet ankle ankles hip hips
wave: wave waves waving point points pointing signal signals direct directs greet greets gesture gestures
clean: clean cleans sweep sweeps mop mops mopping wash washes washing wipe wipes scrub scrubs window
drink: drink drinks drinking bottle soda sip sips cup eat eats eating
exercise: exercise exercises exercising stretch stretches stretching warm warms aerobics jumpingjacks jacks pushup
    pushups situp lunge lunges workout
stop: stop stops stopping halt halts suddenly
forward: forward forwards ahead straight front
backward: backward backwards back behind reverse
left: left leftwards
right: right rightwards
side: side sides sideways sidestep sidesteps lateral veer veers
slow: slow slowly calm calmly gently tired leisurely
quick: quick quickly fast rapidly energetic energetically hard
up: up upward upwards high above raised overhead
down: down downward downwards low floor ground below underneath under
play: play plays playing playground child children
laugh: laugh laughs laughing cry cries crying
circle: circle circles circular around
"""

CONCEPTS: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in (entry.split(":") for entry in re.split(r"\n(?! )", _CONCEPTS.strip()))
}
CONCEPTS_OF_WORD: dict[str, tuple[str, ...]] = {
    word: tuple(name for name, words in CONCEPTS.items() if word in words)
    for word in sorted(set().union(*CONCEPTS.values()))
}

# Words that say nothing about the motion.
_FILLERS = """
a an and are as at be being by character figure for from he her his human if image in individual into is
it its man of on onto or people person photo picture she shows some somebody someone that the their then
they this to was were while with woman
"""
FILLERS = frozenset(_FILLERS.split())

SUBJECTS = ("a person", "someone", "a man", "a woman", "the person", "a human", "a figure", "he", "she", "the man")
_SUBJECT = re.compile(r"^(?:a person|someone|a man|a woman|the person|a human|he|she)\b")

# Exchangeable verbs, same inflection; our own choice.
_SYNONYMS = (
    ("walks", "strolls", "strides", "paces"),
    ("runs", "sprints", "dashes"),
    ("jogs", "runs slowly"),
    ("jumps", "leaps", "hops"),
    ("punches", "boxes", "strikes", "jabs"),
    ("climbs", "clambers", "scrambles"),
    ("spins", "twirls", "whirls", "turns"),
    ("turns around", "spins around", "turns about"),
    ("throws", "tosses", "hurls"),
    ("bends", "leans", "stoops"),
    ("picks up", "lifts", "grabs"),
    ("ducks", "crouches"),
    ("sweeps", "cleans"),
    ("waves", "gestures"),
    ("stands", "is standing"),
    ("sits", "is seated"),
    ("forward", "ahead", "forwards"),
    ("straight ahead", "in a straight line"),
    ("slowly", "at a slow pace"),
    ("suddenly", "abruptly"),
)


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return re.findall(r"[^\W_]+", text.lower())


def paraphrase(caption: str, choose) -> str:
    """Another wording of a caption.

    Args:
        caption: A sentence such as ``"a person walks forward"``.
        choose: ``choose(n)`` returns an index below n, e.g. ``rng.integers``.
    """
    caption = caption.lower().strip()
    if _SUBJECT.match(caption):
        caption = _SUBJECT.sub(SUBJECTS[choose(len(SUBJECTS))], caption, count=1)
    for group in _SYNONYMS:
        for phrase in group:
            if re.search(rf"\b{phrase}\b", caption):
                caption = re.sub(rf"\b{phrase}\b", group[choose(len(group))], caption, count=1)
                break
    return caption
