"""The page for the browser, in a headless Chromium: a picture is coloured, a click becomes gen2seg's mask."""

import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import MAE_COLORER, build

from genseg_mm.datasets import ShapesDataset
from genseg_mm.exporting.files import open_file
from genseg_mm.exporting.graphs import graph_of
from genseg_mm.exporting.web import CHECKSUM, PACKAGE, RUNTIME, write_page
from genseg_mm.functional.point_prompting import masks_from_points
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models import Gen2Seg

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
POINT = (100, 150)  # of the picture, (x, y); in an object


def test_what_makes_no_page_is_one_line(tmp_path):
    with pytest.raises(ValueError, match='a page is for colorers'):
        write_page(graph_of(GenSegInferencer(build('sana')), 'a dog', size=(32, 32)), tmp_path / 'page')
    graph = graph_of(GenSegInferencer(Gen2Seg(colorer=MAE_COLORER).eval()))
    with pytest.raises(FileNotFoundError, match=f'expected {RUNTIME[0]} and .* of {PACKAGE}, but no {RUNTIME[0]}'):
        write_page(graph, tmp_path / 'page', runtime=tmp_path)
    assert not (tmp_path / 'page').exists() and len(CHECKSUM) == 88


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path) -> Iterator[str]:
    """The address of a server of the page of the shipped UNet for shapes."""
    folder = tmp_path / 'page'
    runtime = os.environ.get('GENSEG_ONNXRUNTIME_WEB')
    try:
        graph = graph_of(GenSegInferencer('gen2seg_unet_shapes_long_tiny', device='cpu'))
        write_page(graph, folder, runtime=Path(runtime) if runtime else None)
    except ConnectionError as error:
        pytest.skip(f'needs a network: {error}')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}', folder
        server.shutdown()


def scene_picture(path: Path) -> np.ndarray:
    """A drawn scene, 240 x 320, with an object at the point; its ids."""
    scenes = ShapesDataset(num_scenes=200, image_size=(48, 64), task='instance', split='test')
    x, y = (own // 5 for own in POINT)
    for number in range(200):
        scene = scenes.scene(number)
        around = scene.ids[y - 3 : y + 4, x - 3 : x + 4]
        if around.min() > 0 and around.min() == around.max():
            break
    Image.fromarray(scene.image[..., ::-1]).resize((320, 240), Image.Resampling.NEAREST).save(path)
    return np.kron(scene.ids, np.ones((5, 5), int))


@pytest.mark.slow
def test_a_click_in_the_browser_gives_the_mask_of_python(served, tmp_path):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason=f"needs {name}: pip install 'genseg_mm[onnx]'")
    playwright = pytest.importorskip('playwright.sync_api', reason='needs playwright: pip install playwright')
    if CHROMIUM is None:
        pytest.skip('needs Chromium')
    address, folder = served
    ids = scene_picture(tmp_path / 'scene.png')
    with playwright.sync_playwright() as own:
        browser = own.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        page = browser.new_page(viewport=dict(width=1200, height=800))
        faults, asked = [], []
        page.on('pageerror', lambda error: faults.append(str(error)))
        page.on('request', lambda request: asked.append(request.url))
        page.goto(address)
        said = page.locator('#said')
        playwright.expect(said).to_have_text('Ready.', timeout=120_000)
        page.set_input_files('#file', str(tmp_path / 'scene.png'))
        playwright.expect(said).to_contain_text('Click an object', timeout=120_000)
        box = page.locator('#picture').bounding_box()
        page.mouse.click(
            box['x'] + (POINT[0] + 0.5) * box['width'] / 320, box['y'] + (POINT[1] + 0.5) * box['height'] / 240
        )
        playwright.expect(said).to_contain_text('Mask:', timeout=60_000)
        state = page.evaluate(
            '({mask: Array.from(demo.mask), map: Array.from(demo.map), small: Array.from(demo.small),'
            ' image: Array.from(demo.image), size: demo.smallSize, point: demo.point})'
        )
        if out := os.environ.get('GENSEG_SCREENSHOTS'):
            page.screenshot(path=str(Path(out) / 'web_page.png'))
        page.keyboard.press('ArrowRight')
        moved = page.evaluate('demo.point[0]')
        page.set_input_files('#file', files=[dict(name='a.png', mimeType='image/png', buffer=b'no picture')])
        playwright.expect(said).to_contain_text('This picture cannot be read', timeout=60_000)
        browser.close()
    assert faults == [] and all(own.startswith((address, 'blob:', 'data:')) for own in asked)
    width, height = state['size']
    assert (width, height) == (64, 48) and np.allclose(state['point'], POINT, atol=1) and moved > state['point'][0]
    image = torch.tensor(state['image'], dtype=torch.float32).view(1, 3, height, width)
    small = open_file(folder / 'model.onnx', 'onnx')((image,))
    assert np.abs(small.ravel() - state['small']).max() < 0.05
    colors = torch.tensor(state['map'], dtype=torch.float32).view(3, 240, 320)
    resized = torch.nn.functional.interpolate(torch.from_numpy(small), (240, 320), mode='bilinear')[0]
    assert (colors - resized).abs().max() < 0.1
    mask = np.array(state['mask'], bool).reshape(240, 320)
    rule = json.loads((folder / 'model.json').read_text())['prompting']
    wanted = masks_from_points(colors, [state['point']], **rule)[0].numpy()
    assert (mask != wanted).mean() < 1e-4
    meant = ids == ids[POINT[1], POINT[0]]
    assert (mask & meant).sum() / (mask | meant).sum() > 0.7
