"""Which class a piece of furniture belongs to, by its name in a catalogue.

`classify` goes through the tables of this file: corrections for single models whose name misleads,
categories and words that are left out, then the words of each class, of which the first match wins.
"""

import re
from dataclasses import dataclass

_TABLE = (
    # class, label in ScanNet's table (raw_category), its nyu40 id, words in a name; the first match
    # wins, so "bar chair" is a stool and "table lamp" is no table
    ("lamp", "lamp", 35, "lamp"),
    ("nightstand", "nightstand", 32, "bedside table|bedside cabinet|nightstand|night table"),
    ("tv stand", "tv stand", 39, "(?:tv|television) (?:stand|cabinet|bench|unit)"),
    ("refrigerator", "refrigerator", 24, "refrigerator|fridge|freezer"),
    ("dresser", "dresser", 17, "dresser|chest of drawers|dressing table|changing table|chest"),
    ("wardrobe", "wardrobe", 39, "wardrobe|closet|armoire"),
    ("bathroom vanity", "bathroom vanity", 3, "vanity"),
    ("sink", "sink", 34, "sink|washbasin|wash basin|lavatory"),
    ("cabinet", "cabinet", 3, "cabinet|cupboard|sideboard|locker"),
    ("bookshelf", "bookshelf", 10, "bookcase|bookshelf|bookshelves|shelf|shelves|shelving"),
    ("washing machine", "washing machine", 39, "washing machine|washer|dryer machine|tumble dryer"),
    ("dishwasher", "dishwasher", 38, "dishwasher"),
    ("water heater", "water heater", 40, "water heater"),
    ("water cooler", "water cooler", 39, "water cooler"),
    ("coffee maker", "coffee maker", 40, "coffee (?:maker|machine|brewer)"),
    ("microwave", "microwave", 40, "microwave"),
    ("range hood", "range hood", 38, "hood"),
    ("stove", "stove", 38, "stove|cooktop|hob|induction cooker"),
    ("oven", "oven", 38, "oven"),
    ("fan", "fan", 40, "fan"),
    ("stool", "stool", 40, "stool|bar chair"),
    ("bench", "bench", 39, "bench|little bank|wood bank"),
    ("chair", "chair", 5, "chair|armchair|class seat"),
    ("sofa", "couch", 6, "sofa|couch|settee|loveseat"),
    ("bed", "bed", 4, "bed|crib|futon|cot"),
    ("desk", "desk", 14, "desk"),
    ("bathtub", "bathtub", 36, "bathtub|tub|bath"),
    ("counter", "counter", 12, "counter|island|island extension"),
    ("rug", "rug", 40, "rug|carpet|bathmat|bath mat|doormat|tatami|mat"),
    ("table", "table", 7, "table"),
    ("shower curtain", "shower curtain", 28, "shower curtain"),
    ("shower", "shower", 38, "shower"),
    ("curtain", "curtain", 16, "curtain|drape"),
    ("blinds", "blinds", 13, "blind|blinds"),
    ("window", "window", 9, "window"),
    ("door", "door", 8, "door"),
    ("toilet", "toilet", 33, "toilet|toilets unit"),
    ("urinal", "urinal", 33, "urinal"),
    ("radiator", "radiator", 39, "radiator"),
    ("fireplace", "fireplace", 38, "fireplace|furnace|wood stove"),
    ("television", "tv", 25, "tv|television"),
    ("laptop", "laptop", 40, "laptop|ibook|macbook|notebook computer"),
    ("monitor", "monitor", 40, "monitor|imac"),
    ("printer", "printer", 40, "printer"),
    ("telephone", "telephone", 40, "phone|telephone"),
    ("speaker", "speaker", 40, "speaker|mini stereo"),
    ("whiteboard", "whiteboard", 30, "whiteboard|white board"),
    ("piano", "piano", 39, "piano"),
    ("guitar", "guitar", 40, "guitar"),
    ("mirror", "mirror", 19, "mirror"),
    ("picture", "picture", 11, "picture|painting|poster|frame|photo"),
    ("clock", "clock", 40, "clock"),
    ("towel", "towel", 27, "towel"),
    ("pillow", "pillow", 18, "pillow|cushion"),
    ("vase", "vase", 40, "vase"),
    ("plant", "plant", 40, "plant|ficus|bonsai tree|cactus|bamboo|yucca|orchid|tulip|flower|lily"),
    ("book", "book", 23, "book"),
    ("basket", "basket", 40, "basket|hamper"),
    (
        "trash can",
        "trash can",
        39,
        "(?:trash|garbage) can|trashcan|dustbin|(?:recycling |waste )?bin",
    ),
    ("box", "box", 29, "box|crate|gift|trunck|trunk"),
    ("suitcase", "suitcase", 40, "suitcase|luggage"),
    ("backpack", "backpack", 40, "backpack|rucksack"),
    ("bag", "bag", 37, "handbag|briefcase|bag"),
    ("shoes", "shoes", 40, "shoe|sneaker|slipper|mocassin|moccasin|boot|bootie"),
    (
        "exercise machine",
        "exercise machine",
        40,
        "treadmill|(?:indoor|exercise) bike|fitness tower",
    ),
    ("ladder", "ladder", 39, "ladder"),
    ("fire extinguisher", "fire extinguisher", 40, "extinguisher"),
    ("keyboard", "keyboard", 40, "keyboard"),
)
CLASSES: dict[str, tuple[str, int]] = {label: (raw, nyu40) for label, raw, nyu40, _ in _TABLE}
SCAN_CLASSES: tuple[str, ...] = tuple(sorted({raw for raw, _ in CLASSES.values()}))  # in scans


@dataclass(frozen=True)
class Kind:
    """What a name says: a class and a phrase for use in text, or why the piece is left out."""

    label: str = ""
    phrase: str = ""
    left_out: str = ""


def classify(
    key: str,
    name: str,
    *,
    category: str = "",
    size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    elevation: float = 0.0,
) -> Kind:
    """The class of a piece by its catalogue's entry; sizes and elevation in metres.

    Left out are pieces of a category or with a word that is not furniture, those without a class,
    the garden's pieces other than seats, tables and bins, lamps that hang higher than a person can
    reach to a table, and what is too small to be recognised in a scan or larger than a room.
    """
    words = " ".join(name.lower().split())
    if key in _CORRECTIONS:
        label, phrase = _CORRECTIONS[key]
        return Kind(label, phrase)
    if category in _LEFT_OUT_CATEGORIES:
        return Kind(left_out=_LEFT_OUT_CATEGORIES[category])
    for reason, pattern in _LEFT_OUT:
        if _has(pattern, words):
            return Kind(left_out=reason)
    label = next((row[0] for row in _TABLE if _has(row[3], words)), "")
    if not label:
        return Kind(left_out="no class")
    if category == "Exterior" and label not in _IN_GARDENS_TOO:
        return Kind(left_out="outdoors")
    if label == "lamp" and elevation > _LAMP_HEIGHT:
        return Kind(left_out="fixed to ceiling or wall")
    if max(size) < _SMALLEST:
        return Kind(left_out="too small to be seen in a scan")
    if max(size) > _LARGEST:
        return Kind(left_out="larger than a room")
    return Kind(label, _PHRASES.get(words, words))


def _has(pattern: str, words: str) -> bool:
    return re.search(rf"\b(?:{pattern})(?:s|es)?\b", words) is not None


_SMALLEST, _LARGEST = 0.15, 4.0  # metres, of the longest side
_LAMP_HEIGHT = 1.0
_IN_GARDENS_TOO = {"chair", "table", "bench", "sofa", "stool", "trash can"}

_LEFT_OUT_CATEGORIES = {
    "Characters": "people or animals",
    "Vehicles": "vehicle",
    "Staircases": "stairs",
}

_LEFT_OUT = (
    ("people or animals", "male|female|mannequin|people|person|dog|cat|horse"),
    ("outdoors", "deck|beach|pool|garden|street|park light|porch|outdoor|camping|lamppost|relax"),
    ("outdoors", "mailbox|letters? box|flower box|plant box|barbecue|swing|shutter|chimney"),
    ("stairs", "stair|staircase|escalator|elevator"),
    ("not furniture", "garage|door handle|railing|fence|column"),
    ("fixed to ceiling or wall", "(?:ceiling|wall|hanging|pendant|track) (?:lamp|light|fan)"),
    ("a game", "tennis|football|billiard|doll|toy|car model|chess|dart"),
    ("part of something", "toilet (?:paper|brush|seat)|shower (?:head|door)|towel rack|faucet"),
    ("part of something", "knife|knives|clothes hanger|wall hanger|socket|plug|switch|remote"),
    ("no class", "christmas|wheelchair|sleeping bag|medicine|bread|umbrella|mobile|paper towel"),
)

_PHRASES = {
    # catalogue names that do not read well in a sentence
    "apple ibook": "laptop",
    "apple imac 1998": "desktop computer",
    "apple imac 2004": "desktop computer",
    "armchair ottoman": "armchair with a footrest",
    "baby high chair": "high chair",
    "bamboo": "bamboo plant",
    "bar chair": "bar stool",
    "bath": "bathtub",
    "bathmat": "bath mat",
    "bootie": "pair of ankle boots",
    "box": "storage box",
    "bullet trash can": "trash can",
    "cafe chair": "café chair",
    "cafe table": "café table",
    "chair with cushion": "chair with a cushion",
    "chest": "chest of drawers",
    "child bed": "children's bed",
    "child chair": "children's chair",
    "children chair": "children's chair",
    "children table": "children's table",
    "class seat": "classroom chair",
    "clear sofa": "sofa with cushions",
    "clothes basket": "laundry basket",
    "clothes washing machine": "washing machine",
    "coffee brewer": "coffee maker",
    "contemporary living room": "television wall unit",
    "convertible sofa bz": "convertible sofa",
    "desk table": "desk",
    "double french window 3 panes": "double french window",
    "double french window small panes": "double french window",
    "double vanity": "double bathroom vanity",
    "double window 3 panes": "double window",
    "double window 4 panes": "double window",
    "double window with large pane": "double window",
    "drawers cabinet": "cabinet with drawers",
    "dresser with drawers": "dresser",
    "dryer machine": "tumble dryer",
    "electric water heater": "water heater",
    "exterior door": "front door",
    "extinguisher": "fire extinguisher",
    "ficus": "ficus tree",
    "fitness tower": "multi-gym",
    "frame chambord": "picture frame",
    "frame hôi an": "picture frame",
    "fridge": "refrigerator",
    "flowers": "vase of flowers",
    "full bookcase": "bookcase full of books",
    "furnace": "wood stove",
    "gaz water heater": "gas water heater",
    "gift": "gift box",
    "glass door cabinet": "cabinet with a glass door",
    "high cabinet": "tall kitchen cabinet",
    "hood": "range hood",
    "indoor bike": "exercise bike",
    "induction cooker 2 zones": "induction cooktop",
    "induction cooker 4 zones": "induction cooktop",
    "inkjet printer and scanner": "printer",
    "island": "kitchen island",
    "island bath": "freestanding bathtub",
    "island extension": "kitchen island",
    "large fridge": "large refrigerator",
    "little bank": "wooden bench",
    "little lamp": "small table lamp",
    "little plant": "small potted plant",
    "locked locker": "locker",
    "lower cabinet": "kitchen base cabinet",
    "lower corner cabinet": "corner base cabinet",
    "mini stereo": "stereo system",
    "mocassin": "pair of moccasins",
    "opened convertible sofa bz": "sofa bed",
    "orchids": "potted orchid",
    "osaka chair": "wooden chair",
    "park trashcan": "trash can",
    "pedestal vase lamp": "table lamp",
    "phone": "telephone",
    "plant": "potted plant",
    "propane stove": "gas stove",
    "quadruple arched window": "arched window",
    "quadruple french window": "wide french window",
    "quadruple french window 3 panes": "wide french window",
    "quadruple french window small panes": "wide french window",
    "residential trashcan": "wheeled trash can",
    "rigged fan": "fan",
    "round carpet": "round rug",
    "ryokan chair": "floor chair",
    "shelves": "shelf unit",
    "slippers": "pair of slippers",
    "small lavatory": "washbasin",
    "small lower cabinet": "small base cabinet",
    "small upper cabinet": "small wall cabinet",
    "sneakers": "pair of sneakers",
    "sofa 2 seats": "two-seat sofa",
    "sofa 3 seats": "three-seat sofa",
    "table on trestles": "trestle table",
    "table with tablecloth": "table with a tablecloth",
    "tatami": "tatami mat",
    "technical table": "drafting table",
    "teck chair": "teak chair",
    "toilets unit": "toilet",
    "triple french window": "french window",
    "trunck": "trunk",
    "tulips": "vase of tulips",
    "turn window": "roof window",
    "tv": "television",
    "tv 16:9": "television",
    "tv stand": "television stand",
    "upper cabinet": "wall cabinet",
    "upper corner cabinet": "corner wall cabinet",
    "upper shelves cabinet": "open wall cabinet",
    "vanity": "bathroom vanity",
    "vertical shelves": "tall shelf unit",
    "wall flat tv": "wall-mounted television",
    "white board": "whiteboard",
    "white lily": "vase of white lilies",
    "winchester armchair": "chesterfield armchair",
    "winchester sofa": "chesterfield sofa",
    "wireless phone": "cordless telephone",
    "woman shoes": "pair of high heels",
    "wood bank": "wooden bench",
    "wooden alder table": "wooden table",
    "wooden teak table": "teak table",
    "yucca": "yucca plant",
}

_CORRECTIONS = {
    # single models of Sweet Home 3D's catalogues whose name says too little or something else
    "BlendSwap-CC-0/ammoBox": ("box", "wooden crate"),
    "BlendSwap-CC-0/box": ("box", "plastic box"),
    "BlendSwap-CC-0/foldingChair": ("stool", "folding stool"),
    "BlendSwap-CC-0/stove": ("stove", "cooktop"),
    "BlendSwap-CC-0/technicalTable1": ("table", "work table"),
    "BlendSwap-CC-0/towel3": ("towel", "towel on a rack"),
    "BlendSwap-CC-BY/abdominalBench": ("exercise machine", "exercise bench"),
    "BlendSwap-CC-BY/armChair2": ("chair", "lounge chair"),
    "KatorLegaz/MIDI-keyboard": ("piano", "electronic keyboard"),
    "BlendSwap-CC-BY/spatifilum": ("plant", "peace lily"),
    "KatorLegaz/custom-desk": ("desk", "desk with a hutch"),
    "KatorLegaz/office-chair": ("chair", "office chair"),
    "KatorLegaz/recycling-bin": ("trash can", "recycling bin"),
    "Scopia/box_room": ("cabinet", "sideboard"),
    "Scopia/com_bath3": ("towel", "towel on a rack"),
    "Scopia/contemp_living_room": ("tv stand", "television wall unit"),
    "Scopia/convertible-sofa-BZ-opened": ("bed", "sofa bed"),
    "Scopia/ext_chair": ("chair", "lounge chair"),
    "Scopia/kids_desk_chair": ("chair", "office chair"),
    "Scopia/living_lamp": ("lamp", "floor lamp"),
    "Scopia/livingroom_lamp1": ("lamp", "table lamp"),
    "Scopia/office_box": ("cabinet", "office cabinet"),
    "Scopia/office_chair": ("chair", "office chair"),
    "Scopia/office_furniture1": ("cabinet", "sideboard with a glass door"),
    "Scopia/table_lamp": ("lamp", "table lamp"),
}
