"""Exported files do what their models do, at sizes and numbers of pictures that they were not exported with."""

import json
import re

import numpy as np
import pytest
import torch
from tiny_codecs import linear_codec
from tiny_models import (
    MAE_COLORER,
    SD_COLORER,
    TRANSFORMERS,
    UNET_COLORER,
    build,
    dit_colorer_config,
    genmask_config,
)

from genseg_mm.exporting import files
from genseg_mm.exporting.files import METADATA, open_file, time_against_torch, write_file
from genseg_mm.exporting.graphs import graph_of
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models import Gen2Seg

SHIPPED = {
    'gen2seg_unet_objects_long_tiny': ('batch', 'height', 'width'),
    'gen2seg_unet_shapes_long_tiny': ('batch', 'height', 'width'),
    'gen2seg_mae_shapes_long_tiny': ('batch', 'height', 'width'),
    'genmask_sana_objects_long_tiny': ('batch',),
    'genmask_sana_shapes_long_tiny': ('batch',),
}
TEXT = 'the red circle on the left'


def gen2seg(colorer: dict, **settings) -> GenSegInferencer:
    torch.manual_seed(0)
    return GenSegInferencer(Gen2Seg(colorer=colorer, **settings).eval())


def needs_onnx() -> None:
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason=f"needs {name}: pip install 'genseg_mm[onnx]'")


def metadata(path) -> dict:
    import onnx

    return json.loads({own.key: own.value for own in onnx.load(path).metadata_props}[METADATA])


@pytest.mark.parametrize(
    ('colorer', 'multiples', 'size'),
    [
        pytest.param(UNET_COLORER, [2, 2], (22, 34), id='unet', marks=pytest.mark.slow),  # 11 cells do not halve
        pytest.param(MAE_COLORER, [4, 4], (24, 36), id='mae'),
    ],
)
def test_a_colorer_in_onnx_at_other_sizes_and_numbers(colorer, multiples, size, tmp_path):
    needs_onnx()
    infer = gen2seg(colorer, normalize='sigmoid', gamma=0.7, prompting=dict(radius=20.0), processing_size=0)
    model, out = infer.model, tmp_path / 'colorer.onnx'
    written = write_file(graph_of(infer), out, 'onnx')
    assert written.made.free == ['batch', 'height', 'width'] and written.refused == []
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)  # BGR
    data = infer.pipeline(dict(img=picture))
    with torch.no_grad():
        wanted = model.test_step({key: [own] for key, own in data.items()})[0].pred_network_map.data
    image = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    run = open_file(out, 'onnx')
    alone = run((image,))
    np.testing.assert_allclose(alone[0], wanted.numpy(), atol=0.1)
    assert wanted.min() == 0 and wanted.max() == 255
    np.testing.assert_allclose(run((image.repeat(3, 1, 1, 1),))[2:], alone, atol=0.01)
    facts = metadata(out)
    assert facts['free'] == ['batch', 'height', 'width'] and facts['image']['multiples'] == multiples
    assert facts['image']['channels'] == 'RGB' and facts['image']['range'] == [0, 255]
    assert facts['prompting'] == dict(radius=20.0, sigma=0.01, component=False)
    assert facts['shapes'] == dict(image=['batch', 3, 'height', 'width'], color_map=['batch', 3, 'height', 'width'])
    assert b'site-packages' not in out.read_bytes()  # traces of the machine that wrote it
    assert colorer is MAE_COLORER or model.colorer.unet.num_upsamplers == 1


def test_a_program_of_torch_has_its_metadata_and_the_same_output(tmp_path):
    infer = gen2seg(MAE_COLORER)
    out = tmp_path / 'mae.pt2'
    written = write_file(graph_of(infer), out, 'torch')
    assert written.made.free == ['batch', 'height', 'width'] and written.check.share < 1e-6
    extra = {f'{METADATA}.json': ''}
    program = torch.export.load(out, extra_files=extra)
    facts = json.loads(extra[f'{METADATA}.json'])
    assert facts['shapes'] == written.made.shapes and facts['image']['multiples'] == [4, 4]
    image = torch.rand(1, 3, 32, 32) * 255  # the grid that it was trained at, whose positions need no interpolation
    with torch.no_grad():
        found, raw = program.module()(image), infer.model.raw_maps(image / 127.5 - 1)
    low, high = raw.min(), raw.max()
    torch.testing.assert_close(found, (raw - low) / (high - low) * 255, atol=0.01, rtol=0)


def test_a_one_step_genmask_with_its_text_and_with_prompts_as_an_input(tmp_path):
    one_block = dict(type='genseg_mm.DiTBackbone', family='sana', transformer=dict(TRANSFORMERS['sana'], num_layers=1))
    infer = GenSegInferencer(build('sana', backbone=one_block))
    infer.model.processing_size = 32
    with pytest.raises(ValueError, match='takes a text, or prompts as an input .* but got neither'):
        graph_of(infer)
    out = tmp_path / 'mask.pt2'
    written = write_file(graph_of(infer, TEXT), out, 'torch')
    assert written.made.free == ['batch'] and written.made.size == (32, 32)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    sample = infer(picture, texts=TEXT, return_datasamples=True)['predictions'][0]
    image = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    logits = open_file(out, 'torch')((image,))
    mask = sample.pred_instances.masks[0].numpy()
    assert 0.02 < mask.mean() < 0.98 and ((logits[0, 0] > 0) != mask).mean() < 0.005
    facts = written.made.graph.describe()
    assert facts['text'] == TEXT and facts['steps'] == 1
    other = write_file(graph_of(infer, prompt_input=True), tmp_path / 'prompts.pt2', 'torch')
    assert other.made.free == ['batch', 'tokens']
    assert other.made.graph.inputs == ('image', 'prompt_states', 'prompt_mask')
    with torch.no_grad():
        prompt = infer.model.prompt_encoder([TEXT], None)
    found = open_file(tmp_path / 'prompts.pt2', 'torch')((image, prompt.states, prompt.mask))
    np.testing.assert_allclose(found, logits, atol=1e-3)


def test_a_file_that_does_something_else_gets_no_name(tmp_path, monkeypatch):
    infer = gen2seg(MAE_COLORER)
    infer.model.colorer = torch.nn.Conv2d(3, 3, 3, padding=1)  # files are what matters here, not what is in them
    graph, out = graph_of(infer), tmp_path / 'mae.pt2'
    out.write_bytes(b'mine')
    true_run = files.open_file
    monkeypatch.setattr(files, 'open_file', lambda *args: lambda inputs: true_run(*args)(inputs) + 2.55)
    with pytest.raises(ValueError, match=r'differs from that of the model by 2\.55, 1\.00e-02 of its range'):
        write_file(graph, out, 'torch', size=(32, 32))
    assert out.read_bytes() == b'mine' and [own.name for own in tmp_path.iterdir()] == ['mae.pt2']


def test_weights_in_a_second_file_are_never_those_of_another_export(tmp_path, monkeypatch):
    """Beyond 2 GiB ONNX has two files: a kill between the two moves leaves the pair that was there, or the new one."""
    needs_onnx()
    monkeypatch.setattr(files, '_LARGEST_IN_ONE_FILE', 0)
    out, publish = tmp_path / 'unet.onnx', files.publish
    first, second = gen2seg(UNET_COLORER), gen2seg(UNET_COLORER)
    for infer in (first, second):  # what is in the files does not matter here
        infer.model.colorer = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Conv2d(3, 3, 1))
    picture = (torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255,)
    write_file(graph_of(first), out, 'onnx', size=(16, 16))
    old = open_file(out, 'onnx')(picture)
    (data,) = (own.name for own in tmp_path.iterdir() if own.suffix == '.data')
    assert re.fullmatch(r'unet\.onnx\.[0-9a-f]{8}\.data', data)

    def killed(temporary, path):
        if path == out:
            raise KeyboardInterrupt
        publish(temporary, path)

    with monkeypatch.context() as patched:
        patched.setattr(files, 'publish', killed)
        with pytest.raises(KeyboardInterrupt):
            write_file(graph_of(second), out, 'onnx', size=(16, 16))
    assert np.array_equal(open_file(out, 'onnx')(picture), old)
    (tmp_path / 'unet.onnx.mine.data').touch()
    write_file(graph_of(second), out, 'onnx', size=(16, 16))
    assert np.abs(open_file(out, 'onnx')(picture) - old).max() > 1
    assert len(list(tmp_path.iterdir())) == 3 and not (tmp_path / data).exists()
    assert (tmp_path / 'unet.onnx.mine.data').exists()


def test_what_does_not_fit_is_one_line(tmp_path):
    infer = gen2seg(MAE_COLORER)
    with pytest.raises(ValueError, match='a text is for GenMask, but got a Gen2Seg'):
        graph_of(infer, 'a dog')
    with pytest.raises(ValueError, match=r'--size must be multiples of 4 and 4 pixels .* but got \(30, 32\)'):
        write_file(graph_of(infer), tmp_path / 'a.pt2', 'torch', size=(30, 32))
    unsized = GenSegInferencer(build('sana'))
    with pytest.raises(ValueError, match='its file has to have one: give --size HEIGHT WIDTH'):
        graph_of(unsized, TEXT)


# Families that ONNX files are not written of, and what stops them; docs/export.md names them.
REFUSED = dict(
    z_image='GuardOnDataDependent',  # lists whose lengths are in the values of the text's mask
    pixart='ONNXRuntimeError',  # does not open its graph
    qwen_image='specialized it to be a constant',  # its code counts pictures in Python
    qwen_image_edit='specialized it to be a constant',
)
COLORERS = dict(  # and the UNet's above
    sd=(SD_COLORER, ['batch', 'height', 'width']),
    **{family: (dit_colorer_config(family), None) for family in TRANSFORMERS},
)
OWN_CODEC = ('sana', 'wan', 'flux2')  # and sd: one of each class of codec, which take longer than the transformers


def short(config: dict, folder) -> dict:
    """A model's config without blocks that repeat another one, with a codec that takes no time where it can be."""
    backbone, family = config['backbone'], config['backbone']['family']
    if 'num_layers' in backbone['transformer'] and family != 'sd3':  # whose last block is unlike the others
        backbone = dict(backbone, transformer=dict(backbone['transformer'], num_layers=1))
    return config | dict(backbone=backbone) | ({} if family in OWN_CODEC else dict(codec=linear_codec(folder)))


def assert_refused(graph, folder, reason: str) -> None:
    with pytest.raises(ValueError, match=rf'file\.onnx was not written, \w+ cannot be exported: .*{reason}') as error:
        write_file(graph, folder / 'file.onnx', 'onnx')
    assert len(str(error.value).splitlines()) == 1 and not list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('name', COLORERS)
def test_every_colorer(name, tmp_path, tmp_path_factory):
    needs_onnx()
    colorer, free = COLORERS[name]
    if name in TRANSFORMERS:
        colorer = short(colorer, tmp_path_factory.mktemp('codec'))
    infer = gen2seg(colorer)
    if hasattr(infer.model.colorer, 'backbone'):
        torch.nn.init.normal_(infer.model.colorer.backbone.output_layer.weight, std=0.2)
    infer.model.processing_size = 64
    if name in REFUSED:
        assert_refused(graph_of(infer), tmp_path, REFUSED[name])
        return
    written = write_file(graph_of(infer), tmp_path / 'file.onnx', 'onnx')
    print(name, written.made.free, written.made.size, written.check, written.refused)
    assert written.check.share < 1e-3
    if free is not None:
        assert written.made.free == free


@pytest.mark.slow
@pytest.mark.parametrize('family', TRANSFORMERS)
def test_genmask_of_every_family(family, tmp_path, tmp_path_factory):
    needs_onnx()
    infer = GenSegInferencer(build(family, **short(genmask_config(family), tmp_path_factory.mktemp('codec'))))
    infer.model.processing_size = 64
    if family in REFUSED:
        assert_refused(graph_of(infer, TEXT), tmp_path, REFUSED[family])
        return
    written = write_file(graph_of(infer, TEXT), tmp_path / 'file.onnx', 'onnx')
    print(family, written.made.free, written.made.size, written.check, written.refused)
    assert written.check.share < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('name', SHIPPED)
def test_every_shipped_model(name, tmp_path):
    needs_onnx()
    infer = GenSegInferencer(name, device='cpu')
    text = TEXT if infer.takes_texts else None
    out = tmp_path / 'file.onnx'
    written = write_file(graph_of(infer, text), out, 'onnx')
    file, model = time_against_torch(written.made, out, 'onnx', rounds=10)
    print(name, written.check, out.stat().st_size, file * 1e3, model * 1e3, model / file, written.refused)
    assert tuple(written.made.free) == SHIPPED[name] and written.check.share < 1e-4
