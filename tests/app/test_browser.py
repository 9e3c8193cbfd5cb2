"""The page in a real browser: what people do with it, on a screen and on a phone."""

import base64
import io
import itertools
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import many_visitors
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from test_actions import drawn

from genseg_mm.app import limits
from genseg_mm.app.actions import Actions
from genseg_mm.app.served_models import served_models
from genseg_mm.app.sessions import Sessions
from genseg_mm.datasets import ShapesDataset
from genseg_mm.pictures import iou

pytest.importorskip('gradio', reason="the web page needs Gradio: pip install 'genseg_mm[app]'")
playwright = pytest.importorskip('playwright.sync_api', reason="no Playwright: pip install 'genseg_mm[browser]'")
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
UNET, MAE, READER = 'gen2seg_unet_shapes_long_tiny', 'gen2seg_mae_shapes_long_tiny', 'genmask_sana_shapes_long_tiny'
SIZE = (480, 640)  # of the examples
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Gradio would put files of visitors."""
    return tmp_path_factory.mktemp('gradio')


@pytest.fixture(scope='module')
def served(files: Path) -> Iterator[tuple[str, Sessions]]:
    """Address of a page, and what it keeps of its visitors."""
    from genseg_mm.app import page as form
    from genseg_mm.app.serve import serve

    sessions = Sessions()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GRADIO_TEMP_DIR', str(files))
        patch.setenv('XDG_CACHE_HOME', str(files / 'no_objects'))  # scenes of shapes alone, everywhere
        patch.setattr(form, 'Actions', lambda models: Actions(models, sessions))
        page, address = serve(served_models([UNET, MAE, READER]), port=0)
    yield address, sessions
    page.close(verbose=False)


@pytest.fixture(scope='module')
def address(served: tuple[str, Sessions]) -> str:
    return served[0]


@pytest.fixture(scope='module')
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        try:
            opened = driver.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        except playwright.Error as error:
            pytest.skip(f'no browser: apt install chromium, or playwright install chromium ({str(error)[:100]!r})')
        yield opened
        opened.close()


class Visitor:
    """A person at a browser of their own."""

    def __init__(self, browser: object, address: str, **settings: object) -> None:
        self.context = browser.new_context(**{'viewport': dict(width=1400, height=900), **settings})
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)  # of a machine that others use, too
        self.address, self.problems, self.hosts = address, [], set()
        self.page.on('pageerror', lambda error: self.problems.append(str(error)))
        self.page.on('console', lambda line: self.problems.append(line.text) if line.type == 'error' else None)
        self.page.on('request', lambda asked: self.hosts.add(asked.url.partition(':')[0] + asked.url.split('/')[2]))
        self.page.goto(address)
        self.page.wait_for_selector('.stage[data-ready=yes]')

    def after(self, act: Callable[[], object], until: str = '') -> None:
        """Does something and waits until the page shows what came of it; ``until`` is more to wait for, in JS."""
        before = self.page.get_attribute('.stage', 'data-seq')
        act()
        more = f'&& ({until})' if until else ''
        self.page.wait_for_function(
            f"""(before) => {{ const stage = document.querySelector('.stage');
            return stage.dataset.seq !== before && !stage.classList.contains('busy') {more}; }}""",
            arg=before,
        )

    def example(self, title: str) -> None:
        """Opens an example and waits for its colour map."""
        self.after(
            lambda: self.page.click(f'.examples button[title="Example: {title}"]'),
            "document.querySelector('.frame.map img')",
        )

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A pixel of the picture, on the screen."""
        frame = self.page.locator('.frame.main').first
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        width, height = self.size()
        return box['x'] + (x + 0.5) / width * box['width'], box['y'] + (y + 0.5) / height * box['height']

    def size(self) -> tuple[int, int]:
        return tuple(
            self.page.evaluate("[...document.querySelectorAll('.frame.main canvas')].map(c => [c.width, c.height])[0]")
        )

    def click(self, x: float, y: float, **how: object) -> None:
        self.after(lambda: self.page.mouse.click(*self.place(x, y), **how))

    def saved(self, kind: str, row: int = 0) -> bytes:
        with self.page.expect_download() as found:
            self.after(lambda: self.page.locator(f'button[data-format={kind}]').nth(row).click())
        return Path(found.value.path()).read_bytes()

    def masks(self, row: int = 0) -> list[np.ndarray]:
        """Of the COCO file."""
        return [coco_mask.decode(own['segmentation']) > 0 for own in json.loads(self.saved('coco', row))['annotations']]

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def no_sideways(self) -> None:
        """Nothing is wider than the screen."""
        wide = self.page.evaluate('[document.documentElement.scrollWidth, innerWidth]')
        assert wide[0] <= wide[1], wide


@pytest.fixture
def visit(browser: object, address: str) -> Iterator[Callable[..., Visitor]]:
    visitors = []

    def arrive(**settings: object) -> Visitor:
        visitors.append(Visitor(browser, address, **settings))
        return visitors[-1]

    yield arrive
    for own in visitors:
        own.context.close()
        assert own.problems == []
        assert {host for host in own.hosts if not host.startswith(('data', 'blob'))} <= {
            'http127.0.0.1:' + address.rstrip('/').rpartition(':')[2]
        }


def truth(index: int) -> np.ndarray:
    """Numbers of the instances of the example 'look-alikes' (2) or 'chequers' (7)."""
    return ShapesDataset(8, SIZE, task='instance', split='test', cache=False).scene(index).ids


def middle(mask: np.ndarray) -> tuple[int, int]:
    """A pixel well inside of a mask, (x, y)."""
    import cv2

    y, x = np.unravel_index(
        cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1].argmax(), mask.shape
    )
    return int(x), int(y)


def picture(kind: str, array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def test_clicks_lie_on_the_objects_and_can_be_saved_and_undone(visit) -> None:
    person = visit()
    assert person.page.is_visible('.empty') and not person.page.is_visible('.tools')
    person.example('chequers')
    ids = truth(7)
    objects = [ids == number for number in np.unique(ids[ids > 0])]
    for number, mask in enumerate(objects, 1):
        person.click(*middle(mask))
        assert person.text('.status').startswith(f'{number} object')
    found = person.masks()
    assert [iou(*pair) > 0.8 for pair in zip(found, objects, strict=True)] == [True] * len(objects)
    ids = np.array(Image.open(io.BytesIO(person.saved('mask'))))
    for number, mask in reversed(list(enumerate(found, 1))):  # the later lie on top
        assert ((ids == number) <= mask).all() and (ids[mask] >= number).all()
    cut = np.array(Image.open(io.BytesIO(person.saved('cutout'))))
    assert np.array_equal(cut[..., 3] > 0, ids > 0)
    for own, mask in zip(json.loads(person.saved('polygons'))['features'], found, strict=True):
        assert iou(drawn(own['geometry']['coordinates'], SIZE), mask) > 0.98
    person.after(lambda: person.page.keyboard.press('u'))
    assert len(person.masks()) == len(objects) - 1
    person.after(lambda: person.page.click('.redo'))
    assert len(person.masks()) == len(objects)
    person.after(lambda: person.page.click('.history button >> nth=1'))
    assert np.array_equal(person.masks()[0], found[0])


def test_what_is_seen_is_the_mask(visit) -> None:
    """The overlay and the cut-out on the screen, pixel by pixel, are what is saved."""
    person = visit()
    person.example('look-alikes')
    ids = truth(2)
    person.click(*middle(ids == 1))
    first = person.masks()[0]
    shown = """(which) => { const canvas = document.querySelector(which);
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3] > 0 ? 1 : 0).join(''); }"""
    for which in ('.frame.main canvas', '.frame.cut canvas'):
        bits = np.frombuffer(person.page.evaluate(shown, which).encode(), np.uint8).reshape(SIZE)
        assert np.array_equal(bits == ord('1'), first)
    person.click(*middle(ids == 2))  # another one changes it
    assert iou(person.masks()[1], first) < 0.1


def test_add_remove_box_and_keys(visit) -> None:
    person = visit()
    person.example('chequers')
    ids = truth(7)
    first, second = (ids == 1), (ids == 2)
    person.click(*middle(first))
    person.page.keyboard.down('Control')
    person.click(*middle(second))
    person.page.keyboard.up('Control')
    (both,) = person.masks()
    assert iou(both, first | second) > 0.8
    person.after(lambda: person.page.click('.clear'))
    person.page.click('button:has-text("Fine-tune")')
    person.after(lambda: person.page.get_by_label('One piece').uncheck())
    radius = person.page.get_by_label('number input for Radius of colours')
    person.after(lambda: radius.fill('300'))
    person.click(*middle(first))
    (wide,) = person.masks()
    assert (wide & second).sum() > 0.8 * second.sum()  # far too wide a radius
    person.click(*middle(second), button='right')
    (mended,) = person.masks()
    assert (mended & second).sum() < 0.1 * second.sum() and (mended & first).sum() > 0.8 * first.sum()
    person.after(lambda: radius.fill('0'))
    person.after(lambda: person.page.click('.clear'))
    rows, columns = np.nonzero(second.any(1))[0], np.nonzero(second.any(0))[0]
    start = person.place(max(columns[0] - 3, 9), max(rows[0] - 3, 9))
    end = person.place(min(columns[-1] + 3, SIZE[1] - 1), min(rows[-1] + 3, SIZE[0] - 1))

    def drag() -> None:
        person.page.mouse.move(*start)
        person.page.mouse.down()
        person.page.mouse.move(*end, steps=4)
        person.page.mouse.up()

    person.after(drag)
    assert iou(person.masks()[0], second) > 0.7 and person.page.locator('.frame.main .box').count() == 1
    person.after(lambda: person.page.click('.clear'))
    # Without a mouse: the cross begins in the middle and moves by a fortieth of the width.
    x, y = middle(first)
    person.page.focus('.frame.main')
    for key, steps in (
        ('ArrowLeft' if x < 320 else 'ArrowRight', abs(x - 320) / 16),
        ('ArrowUp' if y < 240 else 'ArrowDown', abs(y - 240) / 16),
    ):
        for _ in range(round(steps)):
            person.page.keyboard.press(key)
    person.after(lambda: person.page.keyboard.press('Enter'))
    assert iou(person.masks()[0], first) > 0.8


def test_everything_sliders_and_models_side_by_side(visit) -> None:
    person = visit()
    person.example('look-alikes')
    person.after(lambda: person.page.click('text=Find everything'))
    ids = truth(2)
    objects = [ids == number for number in np.unique(ids[ids > 0])]
    found = person.masks()
    assert sum(max(iou(own, mask) for own in found) > 0.6 for mask in objects) >= len(objects) - 2
    person.page.click('button:has-text("Models")')
    person.after(
        lambda: person.page.check(f'label:has-text("{MAE}") input'), "document.querySelectorAll('.answer').length === 2"
    )
    assert [own.inner_text().splitlines()[0] for own in person.page.locator('.answer h3').all()] == [UNET, MAE]
    person.after(lambda: person.page.click('.clear'))
    person.click(*middle(objects[1]))
    assert all(iou(person.masks(row)[0], objects[1]) > 0.5 for row in (0, 1))
    before = person.masks()[0]
    person.page.click('button:has-text("Fine-tune")')
    radius = person.page.get_by_label('number input for Radius of colours')
    person.after(lambda: radius.fill('150'))
    assert person.masks()[0].sum() > before.sum()


def test_words(visit) -> None:
    person = visit()
    person.example('shapes')
    person.page.click('button[role=tab]:has-text("Say")')
    field = person.page.get_by_label('What do you mean?')
    assert field.get_attribute('placeholder') == 'such as: the leftmost cross'
    field.fill('the orange square; the purple square')
    person.after(lambda: person.page.click('text=Find it'))
    dataset = ShapesDataset(8, SIZE, split='test', cache=False)
    scene = dataset.scene(6)
    truths = {f'the {own.color} {own.shape}': scene.ids == number for number, own in enumerate(scene.objects, 1)}
    found = person.masks()
    assert iou(found[0], truths['the orange square']) > 0.7 and iou(found[1], truths['the purple square']) > 0.7
    assert person.page.locator('.answer h3').inner_text().startswith(READER)
    field.fill('the blue cross')
    person.after(lambda: field.press('Enter'))
    assert len(person.masks()) == 1 and not np.array_equal(person.masks()[0], found[0])
    field.fill(' ; ')
    person.after(lambda: field.press('Enter'))
    assert person.text('.problem') == 'expected some words, such as: the leftmost star'


def test_pictures_of_words_and_stop(visit) -> None:
    person = visit()
    person.page.click('button[role=tab]:has-text("Imagine")')
    person.page.get_by_label('What should be in the picture?').fill('a scene with a large red circle')
    make = person.page.locator('button:has-text("Make pictures")')
    person.after(make.click, "document.querySelectorAll('.drawn img').length === 4")
    sources = person.page.eval_on_selector_all('.drawn img', 'all => all.map(own => own.src)')
    assert len(set(sources)) == 4
    red = np.array(Image.open(io.BytesIO(base64.b64decode(sources[0].partition(',')[2]))), float)
    assert red[..., 0].mean() > 20
    person.after(lambda: person.page.click('.drawn .use >> nth=0'), "document.querySelector('.frame.map img')")
    person.click(200, 200)
    assert len(person.masks()) == 1
    person.page.get_by_label('number input for Pictures').fill('8')
    person.page.click('button:has-text("Noise and guidance")')
    person.page.get_by_label('number input for Steps').fill('60')
    person.after(make.click, "document.querySelectorAll('.drawn img').length >= 1")
    person.after(lambda: person.page.click('#stop'))
    person.page.wait_for_timeout(1500)
    assert 1 <= person.page.locator('.drawn img').count() < 8
    assert person.text('.problem') == ''


def test_on_a_phone(visit) -> None:
    person = visit(viewport=dict(width=390, height=844), has_touch=True, is_mobile=True, device_scale_factor=2)
    person.no_sideways()
    person.example('chequers')
    ids = truth(7)
    person.after(lambda: person.page.touchscreen.tap(*person.place(*middle(ids == 1))))
    assert iou(person.masks()[0], ids == 1) > 0.8
    person.no_sideways()
    assert person.page.is_visible('.touch') and not person.page.is_visible('.mouse')
    for tab in ('Say', 'Imagine', 'Click'):
        person.page.click(f'button[role=tab]:has-text("{tab}")')
        person.no_sideways()
    person.page.click('button:has-text("Models")')
    person.after(
        lambda: person.page.check(f'label:has-text("{MAE}") input'), "document.querySelectorAll('.answer').length === 2"
    )
    person.no_sideways()
    small = person.page.evaluate(
        "[...document.querySelectorAll('.stage .bar button')].filter(b => b.offsetHeight < 40).map(b => b.innerText)"
    )
    assert small == []  # a finger hits them


@pytest.mark.parametrize('width', [1400, 390])
def test_everything_has_a_name_for_those_who_do_not_see(visit, width: int) -> None:
    person = visit(viewport=dict(width=width, height=844))
    person.example('chequers')
    person.click(300, 300)
    nameless = person.page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, [role=application], [tabindex="0"]')].filter(own =>
        own.offsetParent && !own.ariaHidden && !(own.innerText || own.title || own.getAttribute('aria-label') ||
        own.labels?.length || own.getAttribute('aria-labelledby'))).map(own => own.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    assert person.page.get_attribute('.status', 'aria-live') == 'polite'


def test_bad_uploads_are_one_clear_line(visit) -> None:
    person = visit()

    def give(name: str, data: bytes, shown: str = '') -> str:
        person.page.evaluate("document.querySelector('.problem').textContent = ''")
        person.page.set_input_files('.file', dict(name=name, mimeType='image/png', buffer=data))
        person.page.wait_for_function(
            """(shown) => { const text = (which) => document.querySelector(which).textContent;
            return text('.problem') || (shown && text('.status').includes(shown)); }""",
            arg=shown,
        )
        return person.text('.problem')

    grey = picture('PNG', np.full((40, 60), 90, np.uint8))
    assert give('notes.txt', b'hello').startswith('notes.txt: expected a picture (JPEG, PNG')
    assert 'a video (MP4' in give('film.mp4', b'\0\0\0 ftypisom' + bytes(100))
    assert give('cut.png', grey[:-20]).startswith('cut.png is cut short')
    assert give('empty.png', b'') == 'empty.png: expected a picture, but the file is empty'
    assert person.page.is_visible('.empty')
    too_large = 'huge.png: expected a picture of at most 20 MB, but got a larger file'
    person.page.evaluate(
        """(size) => { const given = new DataTransfer(); given.items.add(new File([new Uint8Array(size)], 'huge.png'));
        const field = document.querySelector('.file'); field.files = given.files;
        field.dispatchEvent(new Event('change')); }""",
        limits.MAX_BYTES + 1,
    )
    assert person.text('.problem') == too_large
    assert give('<img src=x onerror=document.title=1>.png', grey, '60 × 40') == ''
    assert person.page.title() == 'genseg' and person.page.locator('.stage img[src=x]').count() == 0
    photo = picture('JPEG', np.full((1500, 2000, 3), 90, np.uint8))
    assert give('photo.jpg', photo, 'photo.jpg, 2000 × 1500, shown at 1182 × 886') == ''


def test_two_at_once_see_nothing_of_each_other(visit, address: str) -> None:
    first, second = visit(), visit()
    first.example('chequers')
    second.example('look-alikes')
    ids, others = truth(7), truth(2)
    for number in (1, 2):
        first.click(*middle(ids == number))
        second.click(*middle(others == number))
    assert iou(first.masks()[1], ids == 2) > 0.8 and iou(second.masks()[1], others == 2) > 0.5
    assert first.page.locator('.history button').count() == second.page.locator('.history button').count() == 3

    # With the number of the first tab, which is no secret, but without the cookie of its browser, there is nothing.
    asked = []
    first.page.on('request', lambda own: asked.append(own) if own.url.endswith('/run/predict') else None)
    first.after(lambda: first.page.keyboard.press('u'))
    body = json.loads(asked[-1].post_data)
    body['event_data'] = dict(do='refresh')
    answers = [own.context.request.post(asked[-1].url, data=body).json()['data'][0] for own in (first, second)]
    assert len(answers[0]['history']) == 3 and 'picture' in answers[0]
    assert answers[1]['history'] == [] and 'picture' not in answers[1]


def test_what_a_visitor_has_is_dropped_when_the_tab_closes(visit, served: tuple[str, Sessions]) -> None:
    before = set(served[1]._kept)
    person = visit()
    person.example('chequers')
    mine = set(served[1]._kept) - before
    assert len(mine) == 1
    person.context.close()
    for _ in range(100):
        if not mine & set(served[1]._kept):
            break
        time.sleep(0.2)
    assert not mine & set(served[1]._kept)


def test_many_at_once(address: str) -> None:
    """Six with the requests of browsers, and nearly no rest between their clicks."""
    visitors = [many_visitors.Visitor(address, number, clicks=3, pause=0.1) for number in range(6)]
    for own in visitors:
        own.start()
    for own in visitors:
        own.join()
    assert [own.errors for own in visitors] == [[]] * 6
    assert sum(len(own.seconds['click']) for own in visitors) == 18


def test_no_file_can_be_reached_and_none_is_left(visit, address: str, files: Path) -> None:
    person = visit()
    person.after(
        lambda: person.page.set_input_files(
            '.file', dict(name='a.png', mimeType='image/png', buffer=picture('PNG', np.zeros((30, 40), np.uint8)))
        )
    )
    get = person.context.request.get
    base = address.rstrip('/')
    for path in (
        '/gradio_api/file=/etc/passwd', '/gradio_api/file=setup.py', '/gradio_api/file=../setup.py',
        '/file=/etc/passwd', '/gradio_api/file=%2e%2e/%2e%2e/etc/passwd', '/assets/%2e%2e/%2e%2e/%2e%2e/setup.py',
        '/static/..%2f..%2fsetup.py',
        '/gradio_api/file=http://127.0.0.1/', '/gradio_api/proxy=http://127.0.0.1/', '/monitoring', '/docs',
        f'/gradio_api/file={files}', '/assets/..%5c..%5csetup.py', '/svelte/../../../setup.py',
    ):  # fmt: skip
        answer = get(base + path)
        assert answer.status in (403, 404) and 'root:' not in answer.text() and 'EXTRAS' not in answer.text(), path
    upload = person.context.request.post(
        f'{base}/gradio_api/upload', multipart=dict(files=dict(name='a.png', mimeType='image/png', buffer=b'a'))
    )
    assert upload.status == 404
    assert get(base, headers=dict(Host='elsewhere.example')).status == 403
    config = get(f'{base}/config').text()
    assert not re.search(r'/(home|root|tmp|work)/', config)  # no folder of this machine
    person.context.close()
    left = [own for own in files.rglob('*') if own.is_file() and 'no_objects' not in own.parts]
    assert left == []


def test_a_click_at_a_megapixel_is_fast(visit, address: str) -> None:
    """On idle cores a mask is there in well under 150 ms; the bound here is one that a busy machine keeps, too."""
    person = visit()
    scene = ShapesDataset(8, (896, 1170), task='instance', split='test', cache=False).scene(7).image
    data = picture('PNG', np.ascontiguousarray(scene[..., ::-1]))
    person.after(
        lambda: person.page.set_input_files('.file', dict(name='a.png', mimeType='image/png', buffer=data)),
        "document.querySelector('.frame.map img')",
    )
    assert person.size() == (1170, 896)
    times = []
    for x, y in itertools.product((200, 500, 800), (200, 600)):
        person.click(x, y)
        times.append(int(person.page.get_attribute('.stage', 'data-ms')))
    print(f'click to mask at 1 megapixel, in the browser: {sorted(times)} ms')
    assert sorted(times)[1] < 1500
