"""English about objects: other words for them, words for their kinds, plurals, articles, and what cannot be told apart.

To teach a word, add it to ``SYNONYMS``; to say that two kinds may pass for each other, so that no sentence depends on
telling them apart, add a line to ``LOOKALIKES``.
"""

import re
from functools import cache

# The first, third, ... word of a line is kept for testing ('held_out'), the others are for training as well.
SYNONYMS = {
    'airplane': ('plane', 'aeroplane'), 'alarm clock': ('alarm',), 'alien': ('extraterrestrial',),
    'ambulance': ('rescue vehicle',), 'axe': ('hatchet',), 'baby bottle': ('feeding bottle',),
    'backpack': ('rucksack', 'knapsack'), 'bagel': ('ring roll',), 'baguette': ('french stick', 'french bread'),
    'banana': ('yellow banana',), 'bathtub': ('tub', 'bath'), 'bear': ('brown bear',), 'bee': ('honeybee',),
    'beer mug': ('pint of beer', 'mug of beer'), 'bell pepper': ('sweet pepper', 'paprika'),
    'bicycle': ('bike', 'push bike'), 'billed cap': ('baseball cap', 'cap'), 'bison': ('american buffalo',),
    'black cat': ('black kitty',), 'blowfish': ('puffer fish',), 'boar': ('wild pig', 'wild boar'),
    'briefcase': ('attache case',), 'broom': ('sweeping brush',), 'bucket': ('pail',), 'bus': ('coach', 'omnibus'),
    'butterfly': ('winged butterfly',), 'camera': ('photo camera',), 'candle': ('wax candle',),
    'candy': ('sweet', 'bonbon'), 'canoe': ('paddle boat',), 'car': ('automobile', 'motor car'),
    'castle': ('fortress',), 'cat': ('kitty', 'house cat'), 'chair': ('seat for one',), 'chicken': ('hen',),
    'chicken leg': ('drumstick',), 'chipmunk': ('striped squirrel',), 'christmas tree': ('xmas tree', 'decorated fir'),
    'church': ('chapel',), 'clock': ('wall clock', 'dial clock'), 'cockroach': ('roach',), 'coffin': ('casket',),
    'cookie': ('biscuit',), 'corn cob': ('ear of corn', 'maize cob'), 'couch and lamp': ('sofa with a lamp',),
    'cow': ('dairy cow',), 'crab': ('red crab',), 'crocodile': ('alligator', 'croc'), 'croissant': ('crescent roll',),
    'crown': ("king's crown",), 'cucumber': ('gherkin',), 'cup of coffee': ('coffee cup', 'mug of coffee'),
    'cup with straw': ('soft drink', 'soda cup'), 'cupcake': ('muffin', 'fairy cake'),
    'desktop computer': ('desktop pc', 'computer screen'), 'dog': ('doggy', 'hound'), 'dolphin': ('bottlenose',),
    'donkey': ('burro', 'ass'), 'door': ('doorway',), 'doughnut': ('donut', 'ring doughnut'),
    'dragon': ('fire drake',), 'dress': ('frock',), 'drop of water': ('water drop', 'droplet'),
    'drum': ('snare drum',), 'eggplant': ('aubergine',), 'envelope': ('letter', 'mail envelope'),
    'evergreen tree': ('conifer', 'fir tree'), 'fire': ('flame', 'flames'),
    'fire engine': ('fire truck', 'fire brigade truck'), 'fire extinguisher': ('extinguisher',),
    'flashlight': ('torch',), 'flute': ('recorder',), 'flying saucer': ('ufo',),
    'football': ('american football', 'gridiron ball'), 'four leaf clover': ('lucky clover', 'clover leaf'),
    'fox': ('red fox',), 'framed picture': ('painting in a frame',), 'french fries': ('fries', 'chips'),
    'fried egg': ('egg in a pan',), 'frisbee': ('flying disc',), 'frog': ('toad',), 'gear': ('cogwheel', 'cog'),
    'gem': ('jewel', 'gem stone'), 'ghost': ('spook', 'phantom'), 'glasses': ('spectacles', 'eyeglasses'),
    'gloves': ('mittens',), 'goat': ('billy goat',), 'gorilla': ('great ape', 'ape'), 'grapes': ('bunch of grapes',),
    'guitar': ('six-string guitar',), 'hamburger': ('burger', 'cheeseburger'), 'hamster': ('pet hamster',),
    'handbag': ('purse with a strap',), 'headphones': ('headset',), 'hedgehog': ('spiny hedgehog',),
    'helicopter': ('chopper',), 'high-heeled shoe': ('stiletto', 'high heel'), 'hippopotamus': ('hippo',),
    'honey pot': ('jar of honey',), 'horse': ('steed', 'stallion'), 'hot dog': ('frankfurter in a bun',),
    'hot pepper': ('chili', 'chili pepper'), 'house': ('small house', 'home'), 'ice cream': ('bowl of ice cream',),
    'jack-o-lantern': ('halloween pumpkin', 'carved pumpkin'), 'jar': ('jam jar',),
    'jeans': ('denim trousers', 'trousers'), 'kangaroo': ('roo',), 'key': ('door key',),
    'kick scooter': ('push scooter', 'scooter'), 'knife': ("chef's knife", 'kitchen knife'), 'koala': ('koala bear',),
    'ladder': ('step ladder',), 'ladybird': ('ladybug', 'lady beetle'), 'laptop': ('notebook computer',),
    'lemon': ('yellow citrus',), 'lifebelt': ('life buoy', 'ring buoy'), 'light bulb': ('lamp bulb', 'bulb'),
    'lightning bolt': ('flash of lightning', 'bolt'), 'lion': ('lion with a mane',), 'lizard': ('gecko',),
    'locomotive': ('steam engine', 'steam train'), 'log': ('piece of wood', 'wooden log'), 'lollipop': ('lolly',),
    'luggage': ('suitcase', 'travel bag'), 'magnifying glass': ('loupe', 'magnifier'), 'maple leaf': ('autumn leaf',),
    'meat on bone': ('joint of meat',), 'mobile phone': ('cell phone', 'smartphone'), 'money bag': ('sack of money',),
    'monkey': ('macaque',), 'moose': ('elk',), 'motor boat': ('power boat',), 'motor scooter': ('vespa', 'moped'),
    'motorcycle': ('motorbike',), 'mouse': ('little mouse',), 'mushroom': ('toadstool', 'red mushroom'),
    'musical keyboard': ('piano', 'piano keys'), 'necktie': ('tie',), 'newspaper': ('daily paper',),
    'octopus': ('kraken',), 'off-road car': ('suv', 'jeep'), 'onion': ('onion bulb',), 'otter': ('river otter',),
    'owl': ('night owl', 'hooter'), 'padlock': ('lock',), 'paintbrush': ('artist brush',),
    'palm tree': ('coconut palm', 'palm'), 'panda': ('panda bear', 'giant panda'),
    'parcel': ('cardboard box', 'package'), 'parrot': ('macaw',), 'peach': ('nectarine',), 'peanuts': ('groundnuts',),
    'pencil': ('lead pencil',), 'penguin': ('emperor penguin',), 'person': ('adult',), 'pickup truck': ('pickup',),
    'piece of cheese': ('cheese wedge', 'cheese'), 'pig': ('swine', 'hog'), 'pizza': ('slice of pizza',),
    'plug': ('power plug', 'electric plug'), 'police car': ('patrol car', 'cop car'),
    'police officer': ('cop', 'policeman'), 'popcorn': ('bag of popcorn',), 'potato': ('spud',),
    'potted plant': ('plant in a pot', 'house plant'), 'rabbit': ('bunny', 'hare'),
    'racing car': ('race car', 'formula one car'), 'radio': ('transistor radio',), 'rat': ('brown rat',),
    'red apple': ('ripe apple', 'apple'), 'red heart': ('heart shape', 'heart'), 'rhinoceros': ('rhino',),
    'ring': ('diamond ring', 'wedding ring'), 'robot': ('android', 'bot'), 'rocket': ('spaceship', 'space rocket'),
    'roll of paper': ('toilet paper', 'paper roll'), 'rooster': ('cock',), 'rose': ('red rose',),
    'running shoe': ('sneaker', 'trainer'), 'sailboat': ('sailing boat', 'yacht'), 'sandwich': ('sub sandwich',),
    'santa claus': ('father christmas', 'santa'), 'saxophone': ('sax',), 'school building': ('schoolhouse', 'school'),
    'scissors': ('pair of scissors', 'shears'), 'scroll': ('parchment',), 'shark': ('great white',), 'sheep': ('ewe',),
    'ship': ('steamer', 'ocean liner'), 'shopping cart': ('shopping trolley', 'trolley'), 'shrimp': ('prawn',),
    'skateboard': ('board on wheels',), 'skull': ("dead man's head",), 'snail': ('slug with a shell',),
    'snake': ('serpent',), 'snowman': ('man of snow',), 'soccer ball': ('leather ball',), 'socks': ('stockings',),
    'spaghetti': ('pasta', 'noodles'), 'spider': ('tarantula',), 'star': ('yellow star',),
    'stop sign': ('road sign', 'stop board'), 'strawberry': ('red berry',), 'sun': ('shining sun',),
    'sunflower': ('helianthus',), 'sunglasses': ('shades', 'dark glasses'), 'swan': ('white swan',),
    't-rex': ('tyrannosaurus', 'tyrannosaur'), 't-shirt': ('tee shirt', 'tee'), 'taxi': ('cab', 'taxicab'),
    'teacup without handle': ('bowl of tea',), 'teapot': ('tea kettle', 'kettle'),
    'teddy bear': ('plush bear', 'teddy'), 'telephone': ('desk phone', 'landline phone'),
    'television': ('tv', 'tv set'), 'tennis racket': ('racket and ball',), 'tent': ('camping tent',),
    'tiger': ('bengal tiger',), 'toilet': ('lavatory', 'loo'), 'tomato': ('red tomato',),
    'toolbox': ('box of tools', 'tool chest'), 'tooth': ('molar',), 'top hat': ('cylinder hat',),
    'tractor': ('farm tractor',), 'train': ('railway train',), 'tram': ('streetcar', 'trolley car'),
    'trophy': ("winner's cup", 'gold cup'), 'tropical fish': ('aquarium fish',),
    'truck': ('delivery truck', 'delivery van'), 'trumpet': ('brass horn',),
    'tumbler glass': ('whisky glass', 'whiskey glass'), 'turkey': ('gobbler',), 'turtle': ('tortoise',),
    'two-hump camel': ('bactrian camel',), 'umbrella': ('brolly', 'parasol'), 'unicorn': ('horned horse',),
    'violin': ('fiddle',), 'waste bin': ('trash can', 'rubbish bin'), 'watch': ('wristwatch',),
    'watermelon': ('slice of melon',), 'whale': ('blue whale',), 'wheel': ('tyre', 'tire'), 'window': ('pane',),
    'wine glass': ('glass of wine', 'glass of red wine'), 'wolf': ('gray wolf',), 'worm': ('earthworm',),
    'wrapped gift': ('present', 'gift'), 'wrench': ('spanner',), 'yarn': ('ball of wool', 'ball of yarn'),
    'zebra': ('striped horse',),
}  # fmt: skip

# Word: subgroups (or their beginnings) of whose objects it is certainly true; of which it may be; names that are not.
CLASS_WORDS = {
    'animal': (
        ('animal',), ('cat-face', 'monkey-face', 'person-fantasy', 'face-costume', 'plant', 'game', 'tool'),
        ('paw prints', 'pig nose', 'spiral shell', 'coral', 'spider web', 'microbe', 'feather', 'wing', 'dragon',
         'dragon face', 'unicorn', 'hatching chick'),
    ),
    'bird': (('animal-bird',), ('animal-mammal', 'food-prepared', 'plant'), ('feather', 'wing', 'hatching chick')),
    'fruit': (('food-fruit',), ('food-vegetable',), ('tomato', 'olive', 'coconut')),
    'vegetable': (
        ('food-vegetable',), ('food-fruit', 'food-asian', 'plant', 'food-prepared'),
        ('chestnut', 'peanuts', 'avocado', 'ginger root', 'garlic', 'beans', 'hot pepper'),
    ),
    'flower': (('plant-flower',), ('plant-other', 'event'), ('rosette', 'wilted flower')),
    'musical instrument': (('musical-instrument',), ('music', 'sound'), ()),
    'piece of clothing': (
        ('clothing',), ('sport', 'science'),
        ('backpack', 'purse', 'handbag', 'clutch bag', 'lipstick', 'ring', 'gem', 'prayer beads',
         'shopping bags', 'crown', 'glasses', 'sunglasses', 'goggles', 'folding hand fan', 'hair pick',
         'military helmet', "rescue worker's helmet"),
    ),
    'food item': (('food',), ('drink', 'dishware', 'animal', 'plant'), ()),
}  # fmt: skip
CLASS_PLURALS = {'piece of clothing': 'pieces of clothing', 'fruit': 'fruits'}
ANY, ANY_PLURAL = 'object', 'objects'

# Kinds of which one may be called by the name of another: each line is a group.
LOOKALIKES = (
    'car, oncoming car, taxi, oncoming taxi, off-road car, racing car, police car, '
    'oncoming police car, pickup truck, truck, lorry, minibus, ambulance, fire engine, '
    'auto rickshaw',
    'bus, oncoming bus, trolleybus, minibus',
    'train, bullet train, high-speed train, locomotive, metro train, light rail train, tram, tram car, '
    'railway car, monorail, '
    'mountain railway, station, suspension railway',
    'ship, ferry, passenger ship, motor boat, speedboat, sailboat, canoe, person rowing boat',
    'motorcycle, motor scooter, kick scooter, bicycle, person biking, man biking, woman biking',
    'airplane, small airplane, airplane departure, airplane arrival, rocket',
    'cow, ox, water buffalo, cow face, bison, mammoth',
    'mouse, mouse face, rat, hamster, chipmunk, computer mouse',
    'dog, dog face, guide dog, service dog, poodle, wolf, fox',
    'cat, cat face, black cat, grinning cat, kissing cat, crying cat, weary cat, pouting cat, leopard, tiger, '
    'tiger face, '
    'lion',
    'horse, horse face, unicorn, zebra, donkey, carousel horse, jockey on a horse, chess pawn',
    'pig, pig face, boar, pig nose', 'rabbit, rabbit face', 'monkey, monkey face, gorilla, orangutan',
    'bear, teddy bear, polar bear, panda, koala', 'ram, sheep, goat, deer, llama', 'camel, two-hump camel, llama',
    'crocodile, lizard, dragon, dragon face, sauropod, t-rex, snake, worm',
    'whale, spouting whale, dolphin, shark, fish, tropical fish, blowfish, seal',
    'bird, black bird, dove, eagle, duck, goose, swan, chicken, rooster, turkey, baby chick, hatching chick, '
    'front-facing baby chick, dodo, peacock, parrot',
    'bee, fly, mosquito, ant, bug, beetle, ladybird, cricket, cockroach, spider',
    'shrimp, fried shrimp, lobster, crab, squid, octopus',
    'red apple, green apple, pear, peach, tomato, cherries, mango, tangerine', 'melon, watermelon',
    'tangerine, lemon', 'blueberries, grapes, olive', 'potato, roasted sweet potato, peanuts, chestnut',
    'hot pepper, bell pepper, carrot', 'leafy green, broccoli, green salad, herb', 'garlic, onion, ginger root',
    'bread, baguette, croissant, bagel, flatbread, stuffed flatbread, sandwich, pretzel',
    'shortcake, birthday cake, pie, cupcake, custard, pancakes, moon cake, cookie, doughnut, bagel',
    'ice cream, soft ice cream, shaved ice', 'candy, lollipop, chocolate bar',
    'beer mug, clinking beer mugs, wine glass, cocktail glass, tropical drink, clinking glasses, tumbler glass, '
    'glass of milk, cup with straw, cup of coffee, bubble tea, mate drink, teacup without handle, sake bottle, '
    'teapot, trophy',
    'pot of food, steaming bowl, curry rice, cooked rice, bowl with spoon, shallow pan of food, green salad, '
    'spaghetti, '
    'fried egg, canned food, fondue',
    'evergreen tree, deciduous tree, palm tree, christmas tree, tanabata tree',
    'seedling, herb, potted plant, leaf fluttering in wind, fallen leaf, maple leaf, four leaf clover, shamrock',
    'tulip, rose, hibiscus, sunflower, blossom, white flower, wilted flower, cherry blossom, lotus, hyacinth, bouquet, '
    'flower playing cards, rosette',
    'house, house with garden, houses, hut, derelict house, school building, church, bank building, '
    'hospital building, hotel building, love hotel, '
    'office building, convenience store, department store, post office, japanese post office, factory, castle, '
    'japanese castle, classical building, mosque, synagogue, hindu temple, building construction, stadium',
    'closed book, open book, green book, blue book, orange book, books, notebook, '
    'notebook with decorative cover, ledger, '
    'bookmark tabs',
    'page with curl, page facing up, receipt, memo, clipboard, newspaper, rolled-up newspaper, scroll, bookmark tabs, '
    'spiral notepad, spiral calendar, tear-off calendar, calendar, label',
    'pen, fountain pen, pencil, crayon, paintbrush, black nib',
    'mobile phone, mobile phone with arrow, telephone, telephone receiver, pager, fax machine',
    'laptop, desktop computer, television, keyboard, printer',
    'camera, camera with flash, video camera, movie camera, film projector',
    'envelope, e-mail, incoming envelope, love letter, red envelope',
    'open mailbox with raised flag, open mailbox with lowered flag, closed mailbox with lowered flag, '
    'closed mailbox with raised flag, postbox, inbox tray, outbox tray, parcel, ballot box with ballot',
    'padlock, open padlock, locked with key, locked with pen, key, old key',
    'hammer, pick, axe, hammer and pick, hammer and wrench, wrench, screwdriver, carpentry saw',
    'dagger, knife, crossed swords, fork and knife, fork and knife with plate, razor',
    'clock, watch, alarm clock, mantelpiece clock, timer clock, stopwatch, compass, hourglass done, hourglass not done',
    'umbrella, closed umbrella, umbrella with rain drops, umbrella on ground, beach with umbrella',
    'sun, sun with face, star, glowing star, sparkles, shooting star, dizzy',
    'full moon, new moon, full moon face, new moon face, crescent moon, waxing crescent moon, waning crescent moon, '
    'waxing gibbous moon, waning gibbous moon, first quarter moon, last quarter moon, first quarter moon face, '
    'last quarter moon face',
    'cloud, cloud with rain, cloud with snow, cloud with lightning, cloud with lightning and rain, sun behind cloud, '
    'sun behind small cloud, sun behind large cloud, sun behind rain cloud, thought balloon, fog, puff of air',
    'snowman, snowman without snow, snowflake', 'balloon, red paper lantern', 'fire, heart on fire',
    'soccer ball, basketball, volleyball, baseball, softball, tennis racket, football, rugby football, pool 8 ball, '
    'bowling ball, crystal ball, mirror ball, confetti ball',
    '1st place medal, 2nd place medal, 3rd place medal, sports medal, military medal, rosette',
    'guitar, banjo, violin', 'trumpet, postal horn, saxophone', 'drum, long drum', 'microphone, studio microphone',
    'loudspeaker, megaphone, muted speaker, speaker low volume, speaker medium volume, speaker high volume',
    'bell, bell with slash, desk bell', 'backpack, luggage, briefcase, handbag, purse, clutch bag, shopping bags',
    'glasses, sunglasses, goggles, diving mask', 'top hat, billed cap, graduation cap, crown, military helmet, '
    "woman's hat, rescue worker's helmet", "man's shoe, running shoe, hiking boot, flat shoe, high-heeled shoe, "
    "woman's sandal, woman's boot, ballet shoes, thong sandal, roller skate, ice skate",
    "t-shirt, dress, kimono, sari, woman's clothes, coat, lab coat, safety vest, running shirt, martial arts uniform",
    'bikini, one-piece swimsuit, briefs, shorts', 'couch and lamp, chair, seat, bed, person in bed',
    'bathtub, toilet, person taking bath', 'bucket, basket, waste bin, shopping cart', 'wheel, lifebelt',
    'boy, girl, child, baby, baby angel',
    'skull, skull and crossbones',
    'ghost, alien, alien monster, robot, ogre, goblin',
    'globe showing europe-africa, globe showing americas, globe showing asia-australia, globe with meridians, '
    'ringed planet', 'chart increasing, chart decreasing, bar chart, chart increasing with yen',
    'yen banknote, dollar banknote, euro banknote, pound banknote, money with wings, credit card', 'ticket, '
    'admission tickets, bookmark, label', 'wrapped gift, parcel, red envelope', 'gem, ring',
    'computer disk, floppy disk, optical disk, dvd', 'joystick, video game', 'eye, eyes',
    'mouth, biting lip, kiss mark',
    'scissors, carpentry saw', 'candle, diya lamp, red paper lantern, light bulb, flashlight',
    'egg, hatching chick, fried egg, rice ball', 'piece of cheese, pizza, butter', 'honey pot, jar, amphora, '
    'funeral urn',
)  # fmt: skip
# Of these words nobody can be sure with any person: a 'man cook' is a man, a cook and a person.
PEOPLE = ('People & Body',)
PEOPLE_WORDS = frozenset(['person', 'adult', 'man', 'woman', 'people'])

_IRREGULAR = dict(
    mouse='mice', man='men', woman='women', person='people', child='children', goose='geese', tooth='teeth',
    foot='feet', leaf='leaves', knife='knives', wolf='wolves', sheep='sheep', deer='deer', fish='fish', moose='moose',
    bison='bison', shrimp='shrimp', squid='squid', ox='oxen', loaf='loaves', scarf='scarves', shelf='shelves',
    blowfish='blowfish', jellyfish='jellyfish', policeman='policemen', snowman='snowmen', merman='mermen', die='dice',
    axe='axes', potato='potatoes', tomato='tomatoes', mango='mangoes', mosquito='mosquitoes', volcano='volcanoes',
    superhero='superheroes', tornado='tornadoes', burrito='burritos', taco='tacos', swine='swine', bus='buses',
)  # fmt: skip
_SINGULAR_S = {
    'bus', 'minibus', 'glass', 'dress', 'compass', 'octopus', 'cactus', 'lotus', 'hibiscus', 'abacus', 'hippopotamus',
    'tyrannosaurus', 'ass', 'helianthus', 'omnibus', 'tennis', 'canvas', 'moss',
}  # fmt: skip
_STOP = {
    'with', 'of', 'in', 'on', 'at', 'behind', 'without', 'for', 'to', 'from', 'and', 'holding', 'getting',
    'wearing', 'playing', 'taking', 'tipping', 'gesturing', 'bowing', 'raising', 'frowning', 'pouting',
    'surfing', 'swimming', 'golfing', 'rowing', 'biking', 'juggling', 'fencing', 'dancing', 'shrugging',
    'facepalming', 'cartwheeling', 'hugging', 'wrestling', 'screaming', 'pointing', 'vomiting', 'exhaling',
    'running', 'walking',
    'standing', 'kneeling', 'climbing', 'lifting', 'bouncing', 'feeding', 'showing', 'facing', 'done', 'not',
    'beard', 'bald',
}  # fmt: skip
# What only ends like 'running'.
_THINGS = {'bed', 'sled', 'building', 'ring', 'wing', 'dumpling', 'painting'}
_NO_PLURAL = {
    'bread', 'spaghetti', 'rice', 'popcorn', 'bacon', 'salt', 'butter', 'fog', 'fire', 'broccoli', 'garlic',
    'sake', 'yarn', 'wood', 'dna', 'bowling', 'badminton', 'lacrosse', 'cricket', 'tennis', 'camping',
    'construction', 'cooking', 'desert', 'sushi', 'oden', 'pasta', 'ice', 'milk', 'tea', 'coffee', 'cheese',
    'corn', 'maize', 'luggage', 'soap', 'wind', 'smoke', 'money', 'furniture', 'clothing', 'hair', 'hockey',
    'pong', 'equipment', 'medicine', 'paper', 'toast', 'meat', 'glasses', 'jeans', 'scissors', 'trousers',
    'locked', 'unlocked', 'breast-feeding', 'zzz', 'dizzy', 'collision', 'massage', 'haircut', 'racing', 'skis',
    'news', 'mail', 'pingpong', 'selfie', 'sunrise', 'sunset', 'foggy', 'pine', 'mate', 'poo', 'denim',
    'voltage', 'away',
}  # fmt: skip


@cache
def words_of(text: str) -> frozenset[str]:
    """The words of a name, each in the singular as far as the rules know it."""
    return frozenset(_singular(word) for word in re.split(r'[ -]', text) if word)


def _singular(word: str) -> str:
    for one, many in _IRREGULAR.items():
        if word == many:
            return one
    if word in _SINGULAR_S or not word.endswith('s') or word.endswith('ss'):
        return word
    if word.endswith('ies') and len(word) > 4:
        return f'{word[:-3]}y'
    if word.endswith(('ches', 'shes', 'xes', 'sses')):
        return word[:-2]
    return word[:-1]


@cache
def is_plural(name: str) -> bool:
    """Whether a name is that of several ('grapes', 'clapping hands'), by its head."""
    head = _head(name.split())[1]
    if head in _IRREGULAR:
        return False
    return head in _IRREGULAR.values() or (head.endswith('s') and not head.endswith('ss') and head not in _SINGULAR_S)


@cache
def plural(name: str) -> str | None:
    """The plural of a name ('cats with tears of joy'), None where there is none to be sure of."""
    if name in CLASS_PLURALS:
        return CLASS_PLURALS[name]
    words = name.split()
    place, head = _head(words)
    if is_plural(name) or head in _NO_PLURAL or name in _NO_PLURAL or 'and' in words:
        return None
    if head in _STOP or re.search(r'\d', head) or (head.endswith(('ed', 'ing')) and head not in _THINGS):
        return None
    if head in _IRREGULAR:
        many = _IRREGULAR[head]
    elif head.endswith(('s', 'x', 'z', 'ch', 'sh')):
        many = f'{head}es'
    elif re.search(r'[^aeiou]y$', head):
        many = f'{head[:-1]}ies'
    else:
        many = f'{head}s'
    return ' '.join([*words[:place], many, *words[place + 1 :]])


def _head(words: list[str]) -> tuple[int, str]:
    """Place and word of the head: the last before 'with', 'of', ...; 'person' of 'person biking'."""
    for place, word in enumerate(words):
        if word in _STOP and place:
            return place - 1, words[place - 1]
    return len(words) - 1, words[-1]


@cache
def with_article(name: str) -> str:
    """'a zebra', 'an owl', 'grapes', 'bread'."""
    head = _head(name.split())[1]
    if is_plural(name) or head in _NO_PLURAL:
        return name
    sounds_open = name[0] in 'aeiou' and not re.match(r'(uni|euro|one|ufo|ewe)', name)
    return f'{"an" if sounds_open else "a"} {name}'
