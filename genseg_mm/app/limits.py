"""What the page takes at most: everything that a visitor sends or keeps on the server is bounded."""

MAX_BYTES = 20 * 2**20  # of the file of a picture
MAX_PIXELS = 40_000_000  # of its header: more are not decoded
MAX_BODY = MAX_BYTES * 4 // 3 + 2**20  # of a request: a file travels as base64
WORK_PIXELS = 2**20  # larger pictures are worked on at this size; what is saved has their own
MAX_OBJECTS = 60  # of one step
MAX_POINTS = 40  # of one object
MAX_TEXT = 300  # characters of a sentence
MAX_TEXTS = 8  # sentences at once
MAX_DRAWN = 8  # pictures of a sentence at once
MAX_STEPS = 40  # of the history of one visitor
SESSION_BYTES = 96 * 2**20  # of one visitor
ALL_SESSIONS_BYTES = 768 * 2**20
MAX_SESSIONS = 200
MAX_IDLE = 3600.0  # seconds after which a visitor's pictures are dropped
MAP_BYTES = 768 * 2**20  # of colour maps of all visitors; what was dropped is made again
MAX_WAITING = 40  # jobs in the queue
