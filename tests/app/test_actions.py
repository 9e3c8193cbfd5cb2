"""What a page does, without a browser: prompts, history, comparison, words, pictures, and what it refuses."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import cv2
import numpy as np
import pytest
from known_models import SETTINGS, Painter, Reader
from known_scenes import GREEN_MASK, RED_MASK, SCENE, bgr, region
from PIL import Image
from pycocotools import mask as coco_mask

from genseg_mm.app import limits
from genseg_mm.app.actions import FAULT, Actions
from genseg_mm.app.sessions import Sessions
from genseg_mm.app.steps import Settings
from genseg_mm.app.uploads import picture_of_upload


def png(rgb: np.ndarray, **settings: object) -> str:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, 'PNG', **settings)
    return base64.b64encode(file.getvalue()).decode()


def pixels(url: str) -> np.ndarray:
    data = base64.b64decode(url.partition(',')[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


class Visit:
    """A browser: keeps the pictures that came, as the page does."""

    def __init__(self, actions: Actions, key: str = 'me', settings: Settings = SETTINGS) -> None:
        self.actions, self.key, self.settings, self.blobs = actions, key, settings, {}

    def do(self, do: str, **event: object) -> dict:
        return self.take(self.actions.quick(self.key, dict(do=do, **event), self.settings))

    def take(self, state: dict) -> dict:
        self.blobs.update(state['blobs'])
        return state

    def last(self, states: object) -> dict:
        *_, state = [self.take(state) for state in states]
        return state

    def open(self, rgb: np.ndarray = SCENE) -> dict:
        state = self.do('open', name='scene.png', data=png(rgb))
        assert 'error' not in state
        return state

    def click(self, x: float, y: float, tool: str = 'object') -> dict:
        return self.do('click', x=x, y=y, tool=tool)

    def ids(self, state: dict, row: int = 0) -> np.ndarray:
        return pixels(self.blobs[state['rows'][row]['ids']])


@pytest.fixture
def models() -> dict:
    return dict(painter=Painter(), other=Painter('other'), reader=Reader(), second=Reader('second'))


@pytest.fixture
def visit(models: dict) -> Visit:
    return Visit(Actions(models))


def test_clicks_are_objects_and_the_network_runs_once(visit: Visit, models: dict) -> None:
    state = visit.open()
    assert (state['kind'], state['picture']['width'], state['picture']['height']) == ('picture', 30, 20)
    assert state['rows'] == [dict(model='painter', ids=None, map=None, what='colour map', seconds=0.0, areas=[])]
    state = visit.last(visit.actions.prepare('me', SETTINGS))
    assert np.array_equal(pixels(visit.blobs[state['rows'][0]['map']]), bgr(SCENE))
    state = visit.click(5, 6)
    assert np.array_equal(visit.ids(state), RED_MASK)
    state = visit.click(20, 10)
    assert np.array_equal(visit.ids(state), RED_MASK + 2 * GREEN_MASK)
    assert state['rows'][0]['areas'] == [round(RED_MASK.mean(), 4), round(GREEN_MASK.mean(), 4)]
    assert [own['points'] for own in state['objects']] == [((5.0, 6.0, 1),), ((20.0, 10.0, 1),)]
    assert state['objects'][0]['color'] != state['objects'][1]['color']
    assert len(models['painter'].seen) == 1 and models['other'].seen == []
    # What the page has is not sent again: of this click only the masks and the small picture of the step.
    assert sorted(name.partition(':')[0] for name in state['blobs']) == ['ids', 'thumb']


def test_add_and_remove_mend_the_last_object(visit: Visit) -> None:
    visit.open()
    visit.click(5, 6)
    state = visit.click(20, 10, 'add')
    assert np.array_equal(visit.ids(state), RED_MASK | GREEN_MASK) and len(state['objects']) == 1
    state = visit.click(16, 7, 'remove')
    assert np.array_equal(visit.ids(state), RED_MASK | GREEN_MASK)  # the same colour is asked for, too: no nearer
    visit.do('clear')
    visit.settings = Settings(radius=400, connected=False, colorers=('painter',))
    state = visit.click(5, 6)
    assert visit.ids(state).all()
    state = visit.click(20, 10, 'remove')
    assert np.array_equal(visit.ids(state), ~GREEN_MASK)
    visit.do('clear')
    assert visit.click(5, 6, 'remove')['error'].startswith('click on an object first')


def test_boxes_and_one_piece(visit: Visit) -> None:
    visit.open()
    state = visit.do('box', x0=28, y0=16, x1=15, y1=5)  # from any corner
    assert np.array_equal(visit.ids(state), GREEN_MASK)
    assert state['objects'][0]['box'] == (15, 5, 28, 16)
    assert visit.do('box', x0=3, y0=3, x1=4, y1=9)['error'].startswith('expected a box of at least 2 x 2')
    visit.settings = Settings(connected=True, colorers=('painter',))
    state = visit.do('click', x=5, y=6, tool='object')
    assert np.array_equal(visit.ids(state) == 2, region(20, 30, 2, 3, 9, 12))  # without the small square of its colour


def test_history(visit: Visit) -> None:
    visit.open()
    for x, y in ((5, 6), (20, 10), (0, 0)):
        visit.click(x, y)
    state = visit.do('go', by=-1)
    assert state['position'] == 2 and np.array_equal(visit.ids(state), RED_MASK + 2 * GREEN_MASK)
    assert visit.do('go', by=1)['position'] == 3
    assert visit.do('go', by=1)['position'] == 3  # nothing is there to redo
    state = visit.do('go', to=1)
    assert np.array_equal(visit.ids(state), RED_MASK) and len(state['history']) == 4
    state = visit.click(20, 10, 'add')  # what was undone is gone
    assert [own['label'] for own in state['history']] == ['scene.png', '1 object', '1 object']
    for _ in range(9):
        state = visit.do('go', by=-1)
    assert state['position'] == 0 and state['kind'] == 'picture'
    state = visit.do('refresh')
    assert {state['picture']['src'], *(own['thumb'] for own in state['history'])} <= set(state['blobs'])


def test_models_side_by_side(visit: Visit, models: dict) -> None:
    visit.open()
    visit.click(5, 6)
    visit.settings = Settings(connected=False, colorers=('painter', 'other'))
    states = [visit.take(own) for own in visit.actions.prepare('me', visit.settings)]
    assert [[row['model'] for row in state['rows']] for state in states] == [['painter'], ['painter', 'other']]
    assert np.array_equal(visit.ids(states[-1], 1), RED_MASK)
    assert len(states[-1]['history']) == 2  # no step of its own
    state = visit.click(20, 10)
    assert all(np.array_equal(visit.ids(state, row), RED_MASK + 2 * GREEN_MASK) for row in (0, 1))
    assert len(models['other'].seen) == len(models['painter'].seen) == 1


def test_sliders(visit: Visit, models: dict) -> None:
    visit.open()
    visit.click(5, 6)
    visit.settings = Settings(radius=400, connected=False, colorers=('painter',))
    state = visit.do('tune')
    assert visit.ids(state).all() and len(state['history']) == 2
    visit.settings = Settings(size=16, connected=False, colorers=('painter',))
    visit.do('tune')
    assert models['painter'].seen == [(1, 3, 20, 30), (1, 3, 16, 16)]


def test_everything(visit: Visit) -> None:
    visit.open()
    state = visit.last(visit.actions.everything('me', SETTINGS))
    assert state['kind'] == 'everything' and state['objects'] == []
    found = {(visit.ids(state) == number).tobytes() for number in range(1, 1 + len(state['rows'][0]['areas']))}
    assert {GREEN_MASK.tobytes(), (RED_MASK & ~region(20, 30, 20, 17, 24, 20)).tobytes()} <= found
    state = visit.click(5, 6)  # a click begins anew
    assert len(state['objects']) == 1 and np.array_equal(visit.ids(state), RED_MASK)


def test_words(visit: Visit, models: dict) -> None:
    visit.open()
    settings = Settings(readers=('reader', 'second'))
    states = [visit.take(own) for own in visit.actions.words('me', ' what is  red; green ', settings)]
    assert [len(own['rows']) for own in states] == [1, 2]
    state = states[-1]
    assert models['reader'].asked == models['second'].asked == ['what is red', 'green']
    assert np.array_equal(visit.ids(state), RED_MASK + 2 * GREEN_MASK)
    assert state['history'][-1]['label'] == 'what is red · green' and len(state['history']) == 2
    grey = pixels(visit.blobs[state['rows'][0]['map']])
    assert grey[6, 5] > 240 and grey[10, 20] > 240 and grey[0, 0] < 15
    state = visit.last(visit.actions.words('me', 'nothing', settings))
    assert state['error'] == 'the model cannot read that' and state['kind'] == 'words'  # the old ones stay
    for text in ('', ' ; ', None, 'a;' * 9, 'a' * 301):
        assert 'expected' in visit.last(visit.actions.words('me', text, settings))['error']
    assert 'no model for words' in visit.last(visit.actions.words('me', 'red', Settings()))['error']


def test_drawn_pictures(visit: Visit, models: dict) -> None:
    states = [visit.take(own) for own in visit.actions.draw('me', 'a cat', 3, 7, 20, 0, SETTINGS)]
    assert [len(own['drawn']) for own in states] == [1, 2, 3] and len(states[-1]['history']) == 1
    assert models['reader'].asked[1] == ('a cat', 8, dict(num_steps=20, guidance_scale=None))
    assert pixels(visit.blobs[states[-1]['drawn'][2]]).mean() == 9
    state = visit.do('use', number=1)
    assert state['kind'] == 'picture' and state['picture']['width'] == 24 * 16
    for bad in (dict(count=9), dict(seed=-1), dict(steps=0), dict(guidance='x'), dict(text='a; b')):
        given = dict(text='a', count=1, seed=0, steps=5, guidance=0) | bad
        assert 'expected' in visit.last(visit.actions.draw('me', *given.values(), SETTINGS))['error']


def test_what_was_stopped_or_overtaken_brings_nothing(visit: Visit) -> None:
    visit.open()
    running = visit.actions.draw('me', 'a cat', 4, 0, 5, 0, SETTINGS)
    next(running)
    assert visit.actions.stop('me', SETTINGS)['note'] == 'stopped'
    assert list(running) == []
    assert len(visit.do('refresh')['drawn']) == 1
    visit.do('go', by=-1)
    running = visit.actions.words('me', 'red; green', Settings(readers=('reader', 'second')))
    next(running)
    visit.click(5, 6)
    assert list(running) == [] and visit.do('refresh')['kind'] == 'clicks'


@pytest.mark.parametrize(
    ('event', 'expected'),
    [
        (None, 'expected an action of this page'),
        ('click', 'expected an action of this page'),
        (dict(do=['click']), 'expected an action of this page'),
        (dict(do='__init__'), 'expected an action of this page'),
        (dict(do='click', x='5', y=1, tool='object'), "x: expected a number, but got '5'"),
        (dict(do='click', x=float('nan'), y=1, tool='object'), 'x: expected a number'),
        (dict(do='click', x=1, y=20.2, tool='object'), 'y: expected a number from -0.5 to 19.5, but got 20.2'),
        (dict(do='click', x=1, y=1, tool='../'), "tool: expected object, add, remove or box, but got '../'"),
        (dict(do='box', x0=0, y0=0, x1=31, y1=5), 'x1: expected a number from 0 to 30'),
        (dict(do='go', to=True), "to: expected a number, but got 'True'"),
        (dict(do='go', by=7), 'by: expected a number from -1 to 1'),
        (dict(do='example', number=99), 'number: expected a number from 0'),
        (dict(do='use', number=0), 'there is no drawn picture'),
        (dict(do='save', model='painter', format='mask'), 'there is no mask to save yet'),
        (dict(do='save', model=['x'], format='mask'), FAULT),
        (dict(do='open', name='a.png', data=5), 'a.png: expected the bytes of a picture in base64'),
        (dict(do='open', name='a.png', data='/etc/passwd.'), 'a.png: expected the bytes of a picture in base64'),
        (dict(do='open', name='/etc/passwd', data=''), 'passwd: expected a picture, but the file is empty'),
        (dict(do='open', name='a.txt', data=base64.b64encode(b'hello' * 9).decode()), 'a.txt: expected a picture'),
        (dict(do='open', name='a.mp4', data=base64.b64encode(b'....ftypisom' * 9).decode()), 'but got a video (MP4'),
        (dict(do='open', name='cut.png', data=png(SCENE)[:80]), 'cut.png'),
    ],
)  # fmt: skip
def test_bad_events_are_one_line_and_change_nothing(visit: Visit, event: object, expected: str) -> None:
    visit.open()
    state = visit.actions.quick('me', event, SETTINGS)
    assert expected in state['error'] and '\n' not in state['error']
    assert len(state['history']) == 1 and state['kind'] == 'picture'


def test_without_a_picture(models: dict) -> None:
    visit = Visit(Actions(models))
    assert visit.do('refresh')['kind'] == 'empty'
    for state in (visit.click(1, 1), visit.do('go', by=-1), visit.do('clear'), visit.do('save', model='painter')):
        assert state['kind'] == 'empty'
    assert 'open one' in visit.click(1, 1)['error']
    assert 'open one' in visit.last(visit.actions.everything('me', SETTINGS))['error']


def test_large_pictures_are_refused_or_worked_on_smaller(monkeypatch: pytest.MonkeyPatch, visit: Visit) -> None:
    monkeypatch.setattr(limits, 'WORK_PIXELS', 150)
    state = visit.open(SCENE)
    assert (state['picture']['width'], state['picture']['height'], state['picture']['full']) == (15, 10, (20, 30))
    visit.click(2.5, 3)
    file = visit.do('save', model='painter', format='mask')['file']
    saved = pixels(f',{file["data"]}')
    assert saved.shape == (20, 30) and set(np.unique(saved)) == {0, 255} and saved[6, 5] == 255
    monkeypatch.setattr(limits, 'MAX_PIXELS', 500)
    bomb = visit.do('open', name='big.png', data=png(SCENE))
    assert bomb['error'] == 'big.png: expected at most 0 megapixels, but its header says 30 x 20'
    monkeypatch.setattr(limits, 'MAX_BYTES', 40)
    assert 'expected a picture of at most' in visit.do('open', name='a.png', data=png(SCENE))['error']


def test_a_turned_photograph_and_names() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SCENE).save(file, 'JPEG', exif=exif)
    picture = picture_of_upload(base64.b64encode(file.getvalue()).decode(), '..\\..\\c:/x/<b>\n.jpg')
    assert picture.size == picture.full_size == (30, 20) and picture.name == '<b>.jpg'


def test_downloads_are_what_was_clicked(visit: Visit) -> None:
    visit.open()
    visit.click(5, 6)
    visit.click(20, 10)
    visit.click(16, 6, 'remove')
    visit.click(20, 10, 'object')
    visit.do('go', to=2)

    def saved(kind: str) -> bytes:
        return base64.b64decode(visit.do('save', model='painter', format=kind)['file']['data'])

    masks = [RED_MASK, GREEN_MASK]
    assert np.array_equal(pixels(f',{base64.b64encode(saved("mask")).decode()}'), RED_MASK + 2 * GREEN_MASK)
    cut = pixels(f',{base64.b64encode(saved("cutout")).decode()}')
    assert np.array_equal(cut[..., 3] == 255, RED_MASK | GREEN_MASK)
    assert np.array_equal(cut[..., :3], bgr(SCENE))  # the rest of the scene is black
    coco = json.loads(saved('coco'))
    assert coco['images'] == [dict(id=1, file_name='scene.png', width=30, height=20)]
    for own, mask in zip(coco['annotations'], masks, strict=True):
        assert np.array_equal(coco_mask.decode(own['segmentation']), mask) and own['area'] == mask.sum()
    assert coco['annotations'][1]['bbox'] == [15, 5, 13, 11] and coco['annotations'][0]['points'] == [[5, 6, 1]]
    polygons = json.loads(saved('polygons'))
    assert [len(own['geometry']['coordinates']) for own in polygons['features']] == [2, 1]
    for own, mask in zip(polygons['features'], masks, strict=True):
        assert np.array_equal(drawn(own['geometry']['coordinates'], mask.shape), mask)
    assert visit.do('save', model='painter', format='exe')['error'].startswith('format: expected one of mask')


def drawn(polygons: list, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres lie in polygons with holes, by the even-odd rule."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for polygon in polygons:
        for ring in polygon:
            assert ring[0] == ring[-1] and len(ring) >= 4
            for (x0, y0), (x1, y1) in pairwise(ring):
                if y0 != y1:
                    inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def test_polygons_of_holes_lines_and_single_pixels() -> None:
    from genseg_mm.app.downloads import _rings

    mask = region(20, 30, 2, 2, 12, 12) & ~region(20, 30, 4, 4, 9, 9) | region(20, 30, 20, 3, 21, 15)
    mask[18, 28] = mask[6, 6] = True  # the last one in the hole
    rings = _rings(mask)
    assert sorted(map(len, rings)) == [1, 1, 1, 2]
    assert np.array_equal(drawn(rings, mask.shape), mask)
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((15, 17)) < 0.5
        assert np.array_equal(drawn(_rings(mask), mask.shape), mask)
    assert _rings(np.zeros((4, 4), bool)) == []


def test_visitors_see_nothing_of_each_other(models: dict) -> None:
    actions = Actions(models)
    first, second = Visit(actions, 'first'), Visit(actions, 'second')
    first.open()
    first.click(5, 6)
    assert second.do('refresh')['kind'] == 'empty' and second.do('go', by=-1)['history'] == []
    second.open(SCENE[:, ::-1].copy())
    state = second.click(24, 6)
    assert np.array_equal(second.ids(state), RED_MASK[:, ::-1])
    assert np.array_equal(first.ids(first.do('refresh')), RED_MASK)
    actions.sessions.forget('first')
    assert first.do('refresh')['kind'] == 'empty'


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, models: dict) -> None:
    now = [0.0]
    actions = Actions(models, Sessions(lambda: now[0]))
    visit = Visit(actions)
    visit.open()
    for _ in range(limits.MAX_STEPS + 5):
        state = visit.do('clear')
    assert len(state['history']) == limits.MAX_STEPS
    monkeypatch.setattr(limits, 'SESSION_BYTES', 20 * 30 * 3 + 5000)
    assert len(visit.do('clear')['history']) == 5  # of a thousand bytes each, beside the picture that they share
    one = actions.sessions.of('me').num_bytes
    monkeypatch.setattr(limits, 'ALL_SESSIONS_BYTES', 3 * one)
    for name in 'abcde':
        Visit(actions, name).open()
    monkeypatch.setattr(limits, 'MAX_SESSIONS', 2)
    actions.sessions.of('e')
    assert len(actions.sessions) == 2 and actions.sessions.of('d').steps
    now[0] += limits.MAX_IDLE + 1
    actions.sessions.of('new')
    assert len(actions.sessions) == 1
    monkeypatch.undo()
    maps = actions.segmenting.maps
    maps.max_bytes = 3 * 20 * 30 * 3 * 4 * 2
    for _ in range(5):
        visit.open()
        visit.click(5, 6)
    assert maps.num_bytes <= maps.max_bytes and len(maps._kept) == 3
    runs = len(models['painter'].seen)
    state = visit.do('go', to=0)  # its map was dropped: a click makes it again
    state = visit.click(20, 10)
    assert np.array_equal(visit.ids(state) == len(state['objects']), GREEN_MASK)
    assert len(models['painter'].seen) == runs + 1


def test_objects_are_bounded(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, 'MAX_OBJECTS', 2)
    monkeypatch.setattr(limits, 'MAX_POINTS', 2)
    visit.open()
    visit.click(5, 6)
    visit.click(5, 6, 'add')
    assert 'at most 2 points' in visit.click(5, 6, 'add')['error']
    visit.click(20, 10)
    assert 'at most 2 objects' in visit.click(5, 6)['error']


def test_a_fault_of_ours_is_told_without_what_is_inside(visit: Visit, models: dict, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError('/secret/path')

    monkeypatch.setattr(models['painter'].inferencer, 'color_image', broken)
    visit.open()
    state = visit.click(5, 6)
    assert state['error'] == FAULT and 'secret' not in json.dumps(state)


def test_slow_work_that_goes_on_in_other_threads_holds_nothing(visit: Visit) -> None:
    """Gradio asks for each state in whatever thread is free, and leaves work that was stopped where it is."""
    visit.open()
    both = Settings(connected=False, colorers=('painter', 'other'), readers=('reader', 'second'))
    for running in (
        visit.actions.prepare('me', both),
        visit.actions.words('me', 'red', both),
        visit.actions.everything('me', both),
        visit.actions.draw('me', 'a', 2, 0, 5, 0, both),
    ):
        for _ in range(2):
            with ThreadPoolExecutor(1) as thread:
                thread.submit(next, running).result()
                assert thread.submit(visit.do, 'refresh').result()['history']
        visit.do('go', to=0)
