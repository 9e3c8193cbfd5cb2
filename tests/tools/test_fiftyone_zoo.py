"""The remote zoo source by FiftyOne's own loader, from an archive at an address."""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / 'tools/fiftyone_zoo'


def test_the_manifest_names_models_that_come_with_the_package():
    import genseg_mm
    from genseg_mm.inference.build_model import read_config

    models = json.loads((SOURCE / 'manifest.json').read_text())['models']
    assert len(models) == 2
    for own in models:
        _, weights = read_config(own['source'])
        assert Path(weights).samefile(Path(genseg_mm.__file__).parent / 'weights' / own['base_filename'])


def test_fiftyone_opens_the_source(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('FIFTYONE_DO_NOT_TRACK', '1')
    fo = pytest.importorskip('fiftyone', reason='needs fiftyone: pip install fiftyone')
    import fiftyone.zoo as foz

    from genseg_mm.datasets import ShapesDataset
    from genseg_mm.inferencers import GenSegInferencer

    monkeypatch.setattr(fo.config, 'model_zoo_dir', str(tmp_path / 'zoo'))
    shutil.make_archive(str(tmp_path / 'source'), 'zip', SOURCE.parent, SOURCE.name)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f'http://127.0.0.1:{server.server_port}/source.zip'
        foz.register_zoo_model_source(address)
        assert {'gen2seg-unet-objects-tiny', 'genmask-sana-shapes-tiny'} <= set(foz.list_zoo_models(source=address))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    scene = ShapesDataset(num_scenes=1, task='instance', split='test').scene(0)
    picture = np.ascontiguousarray(scene.image[..., ::-1])
    with pytest.raises(ValueError, match='a GenMask needs what to look for'):
        foz.load_zoo_model('genmask-sana-shapes-tiny', device='cpu')
    texts = ['the largest shape', 'the leftmost shape']
    for name, options, config in (
        ('genmask-sana-shapes-tiny', dict(texts=texts), 'genmask_sana_shapes_long_tiny'),
        ('gen2seg-unet-objects-tiny', dict(automatic=True), 'gen2seg_unet_objects_long_tiny'),
    ):
        model = foz.load_zoo_model(name, device='cpu', **options)
        assert model.media_type == 'image'
        found = model.predict(picture)
        expected = GenSegInferencer(config, device='cpu')(scene.image, **options)['predictions'][0]['masks']
        expected = expected[expected.any((1, 2))]
        assert len(found.detections) == len(expected) > 0
        for own, mask in zip(found.detections, expected, strict=True):
            left, top = round(own.bounding_box[0] * 64), round(own.bounding_box[1] * 64)
            whole = np.zeros(mask.shape, bool)
            whole[top : top + own.mask.shape[0], left : left + own.mask.shape[1]] = own.mask
            assert np.array_equal(whole, mask) and own.label in [*texts, 'object']
