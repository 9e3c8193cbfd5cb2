"""The tool that writes descriptions, as a user runs it, with a tiny random vision-language model."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from tiny_qwen_vl import pretrained, save_tiny_qwen_vl

from genseg_mm.launch import user_message

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'dataset_tools' / 'write_descriptions.py'

tool = runpy.run_path(str(TOOL))
make_tiny_refcoco = runpy.run_path(str(TOOL.parent / 'make_tiny_refcoco.py'))['make_tiny_refcoco']


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    return save_tiny_qwen_vl(tmp_path_factory.mktemp('vlm'))


@pytest.fixture
def config(released, tmp_path):
    """A config file with RefCOCO's train and val and a generating dataset."""
    root = tmp_path / 'coco'
    make_tiny_refcoco(root)
    refcoco = dict(
        type='genseg_mm.RefCOCODataset',
        data_root=str(root),
        data_prefix=dict(img_path='train2014'),
        split='train',
        pipeline=[dict(type='genseg_mm.UseDescriptions', file=str(tmp_path / 'out.json'))],
    )
    shapes = dict(type='genseg_mm.ShapesDataset', num_scenes=2, image_size=32)
    generating = dict(shapes, task='text_to_image', caption='full')
    mixed = dict(type='genseg_mm.MixedDataset', datasets=[refcoco, generating])
    content = dict(
        description_writer=dict(
            type='genseg_mm.DescriptionWriter',
            model=pretrained(released),
            processor=released,
            max_new_tokens=3,
            batch_size=3,
        ),
        train_dataloader=dict(dataset=mixed),
        val_dataloader=dict(dataset=dict(refcoco, split='val', test_mode=True)),
        test_dataloader=dict(dataset=dict(shapes, split='test', test_mode=True)),
    )
    path = tmp_path / 'config.py'
    Config(content).dump(str(path))
    return path


def run(monkeypatch, capsys, *arguments) -> str:
    monkeypatch.setattr(sys, 'argv', ['write_descriptions.py', *map(str, arguments), '--device', 'cpu'])
    tool['main']()
    return capsys.readouterr().out


def sentences(tmp_path, split: str) -> set[tuple[str, str]]:
    """All (picture, sentence) of a split, from the files."""
    from genseg_mm.datasets import RefCOCODataset

    dataset = RefCOCODataset(
        data_root=str(tmp_path / 'coco'), data_prefix=dict(img_path='train2014'), split=split, sentence='all'
    )
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    return {(f'train2014/{Path(item["img_path"]).name}', item['text']) for item in items}


def pairs(out: Path) -> set[tuple[str, str]]:
    content = json.loads(out.read_text())['descriptions']
    return {(picture, text) for picture, own in content.items() for text in own}


def test_every_sentence_is_described_once_and_used(config, tmp_path, monkeypatch, capsys):
    from genseg_mm.datasets import LoadImage, UseDescriptions
    from genseg_mm.registry import DATASETS, MODELS

    out = tmp_path / 'out.json'
    printed = run(monkeypatch, capsys, config, out, '--split', 'train', 'val')
    expected = sentences(tmp_path, 'train') | sentences(tmp_path, 'val')
    assert pairs(out) == expected
    assert f'{len(expected)} descriptions, {len(expected)} of them new' in printed
    assert '2 items of the task image left out' in printed
    cfg = Config.fromfile(config)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    items = [dataset[index] for index in range(len(dataset))]
    assert {item['question'] for item in items} == {text for _, text in sentences(tmp_path, 'val')}
    writer = MODELS.build(cfg.description_writer)
    picture, text = min(expected)
    item = dict(img_path=str(tmp_path / 'coco' / picture), text=text)
    description = writer([LoadImage()(dict(item))['img']], [text])[0]
    assert UseDescriptions(str(out))(item)['text'] == description


def test_it_goes_on_where_it_stopped(config, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out.json'
    from genseg_mm.models import DescriptionWriter

    forward, calls = DescriptionWriter.forward, []

    def stops(self, images, texts):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(texts))
        return forward(self, images, texts)

    with monkeypatch.context() as patch:
        patch.setattr(DescriptionWriter, 'forward', stops)
        with pytest.raises(KeyboardInterrupt):
            run(monkeypatch, capsys, config, out, '--split', 'train')
    assert calls == [3, 3]
    first = json.loads(out.read_text())
    assert len(pairs(out)) == 6
    printed = run(monkeypatch, capsys, config, out, '--split', 'train')
    assert '6 descriptions are there already' in printed
    whole = tmp_path / 'whole.json'
    run(monkeypatch, capsys, config, whole, '--split', 'train')
    assert json.loads(out.read_text()) == json.loads(whole.read_text())
    for picture, own in first['descriptions'].items():
        assert own.items() <= json.loads(out.read_text())['descriptions'][picture].items()
    before = out.stat().st_mtime_ns
    assert '0 to describe' in run(monkeypatch, capsys, config, out, '--split', 'train')
    assert out.stat().st_mtime_ns == before


def test_pictures_that_are_drawn_are_named_by_their_pixels(config, tmp_path, monkeypatch, capsys):
    from genseg_mm.datasets import ShapesDataset, UseDescriptions

    # Scenes 0 and 1 of training are other pictures than scenes 0 and 1 of the test.
    text = config.read_text().replace("task='text_to_image'", "task='referring'")
    text = text.replace("caption='full'", 'caption=None')
    config.write_text(text)
    out = tmp_path / 'out.json'
    run(monkeypatch, capsys, config, out, '--split', 'train', 'test')
    drawn = [name for name in json.loads(out.read_text())['descriptions'] if '/' not in name]
    assert len(drawn) == 4
    # A training set that draws one expression per access finds a description for each of them.
    found = set()
    scenes = ShapesDataset(num_scenes=2, image_size=32, pipeline=[UseDescriptions(str(out))])
    for _ in range(20):
        found |= {scenes[index]['question'] for index in range(2)}
    listed = [own.text for index in range(2) for own in scenes.scene_expressions(index)]
    assert found <= set(listed)
    assert len(found) > len(set(listed)) // 2


def test_two_pictures_of_one_name_are_refused():
    class Dataset(list):
        def get_data_info(self, index: int) -> dict:
            return self[index]

    one = Dataset([dict(img_path='/a/val/1.jpg', text='x'), dict(img_path='/a/val/1.jpg', text='y')])
    other = Dataset([dict(img_path='/b/val/1.jpg', text='x')])
    files = {}
    pairs, _ = tool['wanted'](one, 'val', files)
    assert pairs == {('val/1.jpg', 'x'): 0, ('val/1.jpg', 'y'): 1}
    with pytest.raises(ValueError, match='test: /b/val/1.jpg and /a/val/1.jpg are two pictures, but'):
        tool['wanted'](other, 'test', files)


def test_another_model_is_refused_as_a_users_mistake(config, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out.json'
    out.write_text(json.dumps(dict(writer=dict(template='old {}'), descriptions={})))
    with pytest.raises(ValueError) as refused:
        run(monkeypatch, capsys, config, out, '--split', 'val')
    message = user_message(refused.value)  # what the tool prints in place of a traceback
    assert message.startswith(f"{out} was written with other settings: template 'old {{}}' there")


def test_configs_without_what_it_needs(config, tmp_path, monkeypatch, capsys):
    text = config.read_text().replace('description_writer = ', 'other = ')
    config.write_text(text)
    with pytest.raises(ValueError, match='has no description_writer: expected dict'):
        run(monkeypatch, capsys, config, tmp_path / 'out.json')


def test_items_without_text_are_named():
    class Dataset:
        test_mode = True

        def __len__(self) -> int:
            return 1

        def get_data_info(self, index: int) -> dict:
            return dict(img_path='a.jpg', img=np.zeros((8, 8, 3), np.uint8))

    with pytest.raises(ValueError, match="val, item 0: expected a string 'text', but got None"):
        tool['wanted'](Dataset(), 'val')
