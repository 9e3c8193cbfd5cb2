"""Label Studio's requests by HTTP, as it sends them; brush strokes decoded back to masks."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from genseg_mm.inference.annotation_exports import brush_rle
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.label_studio import MAX_BODY, LabelStudioBackend, make_server

INTERFACE = """
<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="tag" toName="image"><Label value="Ring" background="#FF0000"/><Label value="Disk"/></BrushLabels>
  <KeyPointLabels name="tag2" toName="image" smart="true"><Label value="Ring"/><Label value="Disk"/></KeyPointLabels>
  <RectangleLabels name="tag3" toName="image" smart="true"><Label value="Ring"/><Label value="Disk"/></RectangleLabels>
  <TextArea name="prompt" toName="image" editable="true"/>
</View>
"""


def decode_brush(rle: list[int]) -> np.ndarray:
    """Values of Label Studio's run-length code, read bit by bit after its description."""
    bits, place = ''.join(f'{byte:08b}' for byte in rle), 0

    def read(num: int) -> int:
        nonlocal place
        place += num
        return int(bits[place - num : place], 2)

    num, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < num:
        same = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if same else [read(word) for _ in range(length)]
    return np.array(values)


@pytest.mark.parametrize('shape', [(1, 1), (5, 7), (48, 64), (300, 400)])
def test_brush_strokes_are_the_mask(shape):
    generator = np.random.default_rng(sum(shape))
    for mask in (generator.random(shape) < 0.3, np.zeros(shape, bool), np.ones(shape, bool)):
        values = decode_brush(brush_rle(mask)).reshape(*shape, 4)
        assert np.array_equal(values, np.repeat(mask[..., None] * 255, 4, 2))


def test_brush_strokes_are_read_by_label_studio():
    brush = pytest.importorskip('label_studio_sdk.converter.brush', reason='needs label-studio-sdk')
    mask = np.random.default_rng(0).random((33, 47)) < 0.4
    decoded = brush.decode_rle(brush_rle(mask)).reshape(33, 47, 4)
    assert np.array_equal(decoded[..., 3] > 0, mask)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A red and a green rectangle on black, 60 x 100, and a file that is not to be read."""
    (tmp_path / 'root/deep').mkdir(parents=True)
    (tmp_path / 'root/media/upload/1').mkdir(parents=True)
    image = np.zeros((60, 100, 3), np.uint8)
    image[10:40, 10:40], image[20:50, 60:90] = (255, 0, 0), (0, 255, 0)
    for name in ('root/a.png', 'root/deep/b c.png', 'root/media/upload/1/c.png', 'secret.png'):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / 'root/link.png').symlink_to(tmp_path / 'secret.png')
    (tmp_path / 'root/text.png').write_text('no picture')
    return tmp_path / 'root'


@pytest.fixture
def post(pictures: Path) -> Iterator[Callable]:
    """Calls a back end whose model gives back its input."""
    colorer = dict(type='torch.nn.Conv2d', in_channels=3, out_channels=3, kernel_size=1, bias=False)
    model = dict(type='genseg_mm.Gen2Seg', colorer=colorer, normalize='none', prompting=dict(radius=20.0, sigma=1e-3))
    made = GenSegInferencer(Config(dict(model=model, default_scope='genseg_mm')), 'random', 'cpu', show_progress=False)
    with torch.no_grad():
        made.model.colorer.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
    yield from serving(LabelStudioBackend(made, pictures, 'squares'))


def serving(backend: LabelStudioBackend) -> Iterator[Callable]:
    server = make_server(backend, '127.0.0.1', 0)
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
    thread.start()

    def call(path: str, content: object = None, **headers: str) -> tuple[int, dict]:
        connection = http.client.HTTPConnection('127.0.0.1', server.server_port, timeout=30)
        body = content if isinstance(content, (bytes, type(None))) else json.dumps(content).encode()
        headers = {'Content-Type': 'application/json'} | {key.replace('_', '-'): own for key, own in headers.items()}
        connection.request('GET' if body is None else 'POST', path, body, headers)
        response = connection.getresponse()
        found = response.status, json.loads(response.read())
        connection.close()
        return found

    call.backend = backend
    yield call
    server.shutdown()
    thread.join()
    server.server_close()


def request_of(image: str, *regions: dict) -> dict:
    """As Label Studio's ``make_predictions`` sends it."""
    task = dict(id=7, data=dict(image=image), annotations=[], predictions=[], project=1)
    context = dict(result=list(regions)) if regions else None
    params = dict(login=None, password=None, context=context)
    return dict(tasks=[task], model_version=None, project='1.1700000000', label_config=INTERFACE, params=params)


def click(x: float, y: float, positive: bool = True, label: str = 'Disk') -> dict:
    value = dict(x=x, y=y, width=0.3189792663476874, labels=[label], keypointlabels=[label])
    place = dict(original_width=100, original_height=60, image_rotation=0, from_name='tag2', to_name='image')
    return dict(place, value=value, is_positive=positive, id='fBWv1t0S2L', type='keypointlabels', origin='manual')


def box(x: float, y: float, width: float, height: float) -> dict:
    value = dict(x=x, y=y, width=width, height=height, rotation=0, rectanglelabels=['Ring'])
    return dict(original_width=100, original_height=60, value=value, type='rectanglelabels', from_name='tag3')


def mask_of(stroke: dict) -> np.ndarray:
    height, width = stroke['original_height'], stroke['original_width']
    return decode_brush(stroke['value']['rle']).reshape(height, width, 4)[..., 3] > 0


def test_health_setup_and_webhook(post):
    assert post('/health') == (200, dict(status='UP', model_class='Gen2Seg'))
    setup = dict(project='1.1700000000', schema=INTERFACE, hostname='http://localhost:8080', access_token='x')
    assert post('/setup', setup) == (200, dict(model_version='squares'))
    code, answer = post('/webhook', dict(action='ANNOTATION_CREATED', project=dict(id=1), annotation={}))
    assert code == 200 and answer['status'] == 'ok'
    assert post('/none')[0] == post('/none', {})[0] == 404


def test_clicks_become_brush_strokes(post):
    code, answer = post('/predict', request_of('/data/local-files/?d=a.png', click(25, 40)))
    (prediction,) = answer['results']
    (stroke,) = prediction['result']
    assert code == 200 and prediction['model_version'] == 'squares' and 0.9 < prediction['score'] <= 1
    truth = np.zeros((60, 100), bool)
    truth[10:40, 10:40] = True
    assert np.array_equal(mask_of(stroke), truth)
    told = {key: stroke[key] for key in ('type', 'from_name', 'to_name', 'image_rotation')}
    assert told == dict(type='brushlabels', from_name='tag', to_name='image', image_rotation=0)
    assert stroke['value']['format'] == 'rle' and stroke['value']['brushlabels'] == ['Disk']


def test_several_clicks_and_boxes(post):
    for regions, area in (
        ([click(25, 40), click(75, 60)], 1800),
        ([click(25, 40), click(75, 60, False)], 900),
        ([box(55, 30, 40, 60)], 900),
        ([click(25, 40), box(10, 10, 10, 90)], 300),
        ([click(25, 40, False)], 0),
    ):
        (prediction,) = post('/predict', request_of('a.png', *regions))[1]['results']
        assert sum(mask_of(stroke).sum() for stroke in prediction['result']) == area
    seen = []
    post.backend.inferencer._predict = seen.append  # the map of this picture is known
    assert post('/predict', request_of('a.png', click(25, 40)))[0] == 200 and not seen


def test_all_instances_where_nothing_was_clicked(post):
    (prediction,) = post('/predict', request_of('/data/upload/1/c.png'))[1]['results']
    assert sorted(mask_of(stroke).sum() for stroke in prediction['result']) == [900, 900]
    assert {stroke['value']['brushlabels'][0] for stroke in prediction['result']} == {'Ring'}


@pytest.mark.parametrize(
    'address', ['a.png', '/a.png', '/data/local-files/?d=deep/b%20c.png', 'deep/b%20c.png', '/data/upload/1/c.png']
)
def test_pictures_of_the_folder_are_found(post, address):
    assert post.backend.picture_path(address).is_relative_to(post.backend.root)


@pytest.mark.parametrize(
    'address',
    [
        '../secret.png', '/data/local-files/?d=../secret.png', '/data/local-files/?d=%2e%2e/secret.png', 'link.png',
        '/data/upload/../../secret.png', '/etc/passwd', 'file:///etc/passwd', 'http://127.0.0.1/a.png', '//host/a.png',
        's3://bucket/a.png', 'none.png', 'deep', 'a\0.png', '', None, 7, {'a': 1}, 'text.png',
    ],
)  # fmt: skip
def test_no_other_file_is_read(post, address):
    code, answer = post('/predict', request_of(address, click(25, 40)))
    assert code == 400 and 'root' not in answer['error'] and '\n' not in answer['error']
    assert 'picture' in answer['error']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(tasks=None), 'tasks: expected a list'),
        (dict(tasks=[{}] * 65), 'tasks: expected a list of at most 64'),
        (dict(label_config='<View/>'), 'found no such pair'),
        (dict(label_config='<View'), 'expected XML, but got'),
        (dict(label_config='<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>'), 'without DOCTYPE and entities'),
        (dict(params=dict(context=dict(result=[click(101, 5)]))), 'expected value.x in percent of the picture'),
        (dict(params=dict(context=dict(result=['a']))), 'expected a list of regions'),
        (dict(params=[1]), 'params: expected an object, but got list'),
        (dict(params=dict(context='x')), 'params.context: expected an object, but got str'),
        (dict(params=dict(context=dict(result=[click(5, 5)] * 257))), 'expected at most 256 regions, but got 257'),
        (dict(tasks=[dict(data=dict(image='a' * 9000))]), 'picture: there is no file'),
        (dict(tasks=[dict(data=dict(image='a%00.png'))]), 'picture: there is no file'),
        (dict(tasks=[dict(data=dict(image='\ud800.png'))]), 'picture: there is no file'),
        (dict(tasks=[dict(data=dict(image='http://[x'))]), 'picture: expected a path'),
    ],
)
def test_wrong_requests_are_refused(post, change, message):
    code, answer = post('/predict', request_of('a.png') | change)
    assert code == 400 and message in answer['error']


def test_bodies_hosts_and_types_are_refused(post):
    good = request_of('a.png', click(25, 40))
    assert post('/predict', b'{"half": ')[0] == post('/predict', b'[]')[0] == post('/predict', b'[' * 5000)[0] == 400
    assert post('/predict', good, Content_Type='text/plain')[0] == 400
    code, answer = post('/predict', b'{}', Content_Length=str(MAX_BODY + 1))
    assert code == 400 and f'at most {MAX_BODY} bytes' in answer['error']
    assert post('/predict', good, Host='evil.example')[0] == 403
    assert post('/health', Host='localhost:9090')[0] == 200


def test_a_port_that_is_taken(post):
    with pytest.raises(ValueError, match='cannot listen at 127.0.0.1, port 70000: .*; choose another --host or --port'):
        make_server(post.backend, '127.0.0.1', 70000)
    server = make_server(post.backend, '127.0.0.1', 0)
    with pytest.raises(ValueError, match='Address already in use'):
        make_server(post.backend, '127.0.0.1', server.server_port)
    server.server_close()


def test_texts_and_labels_are_sentences_of_genmask(pictures):
    inferencer = GenSegInferencer('genmask_sana_shapes_long_tiny', device='cpu', show_progress=False)
    for post in serving(LabelStudioBackend(inferencer, pictures, 'genmask')):
        area = dict(type='textarea', value=dict(text=['the red square']), from_name='prompt', to_name='image')
        (prediction,) = post('/predict', request_of('a.png', area))[1]['results']
        (stroke,) = prediction['result']
        expected = inferencer(str(pictures / 'a.png'), texts='the red square')['predictions'][0]['masks'][0]
        assert np.array_equal(mask_of(stroke), expected) and stroke['value']['brushlabels'] == ['Ring']
        interface = INTERFACE.replace('"Ring"', '"the red square"').replace('"Disk"', '"the green square"')
        request = request_of('a.png') | dict(label_config=interface)
        (prediction,) = post('/predict', request)[1]['results']
        assert {own['value']['brushlabels'][0] for own in prediction['result']} <= {
            'the red square', 'the green square',
        }  # fmt: skip
