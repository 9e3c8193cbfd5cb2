"""The bad inputs of tests/bad_inputs.py, as data. ``{}`` is the folder of the files that ``make_files`` writes."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TINY = 'genmask_sana_shapes_tiny'

_SOURCE = 'pretrained_model_name_or_path'
_HUB = "_base_ = './gen2seg.py'\nmodel = dict(colorer=dict("
CONFIGS = {
    'syntax': 'model = dict(',
    'name_error': 'a = 1\nmodel = undefined_name\n',
    'division': 'model = 1 / 0\n',
    'raises': 'raise RuntimeError("two\\nlines")\n',
    'asserts': 'assert 1 == 2\n',
    'exits': 'import sys\nsys.exit(3)\n',
    'no_base': "_base_ = './nowhere.py'\n",
    'own_base': "_base_ = './own_base.py'\n",
    'heir': "_base_ = './division.py'\n",
    'no_mmseg_file': "_base_ = 'mmseg::_base_/models/nowhere.py'\n",
    'no_package': "_base_ = 'mmnothing::a.py'\n",
    'custom_import': "custom_imports = dict(imports=['no_such_module'])\n",
    'twice': "_base_ = ['./one.py', './other.py']\n",
    'one': 'x = 1\n',
    'other': 'x = 2\n',
    'merges': "_base_ = './one.py'\nx = dict(a=1)\n",
    'reserved': 'filename = 3\n',
    'null_bytes': 'a = 1\0\n',
    'no_model': 'x = 1\n',
    'only_model': "model = dict(type='genseg_mm.Gen2Seg')\n",
    'reads_file': "text = open('/no/such/file.txt').read()\n",
    'colorer': "_base_ = './gen2seg.py'\nmodel = dict(colorer=dict(type='torch.nn.Conv2d', in_channels=3, "
    'out_channels=3, kernel_size=1, bias=False))\n',
    'hub': f"{_HUB}type='diffusers.AutoencoderKL.from_pretrained', {_SOURCE}='owner/nothing', subfolder='vae'))\n",
    'hub_text': f"{_HUB}type='transformers.T5EncoderModel.from_pretrained', {_SOURCE}='owner/nothing'))\n",
    'no_folder': f"{_HUB}type='diffusers.AutoencoderKL.from_pretrained', {_SOURCE}='/no/such/folder'))\n",
    'gen2seg': "default_scope = 'genseg_mm'\nmodel = dict(type='genseg_mm.Gen2Seg')\n",
}
_TRAIN = f'{TINY} --work-dir {{}}/run --cfg-options '
_SIDE = 'train_dataloader.dataset.datasets.0.'

# What --cfg-options set -> what the line must hold.
_OPTIONS = {
    'train_dataloader.batch_size=0': 'train_dataloader.batch_size: expected an integer of at least 1, but got 0',
    'train_dataloader.batch_size=-3': 'but got -3',
    'train_dataloader.batch_size=many': "but got 'many'",
    'train_dataloader.batch_size=1.5': 'but got 1.5',
    'train_dataloader.batch_size=True': 'but got True',
    'val_dataloader.batch_size=0': 'val_dataloader.batch_size: expected an integer',
    'train_dataloader.num_workers=-1': 'train_dataloader.num_workers: expected an integer of at least 0, but got -1',
    'train_dataloader.num_workers=two': "but got 'two'",
    'train_dataloader.persistent_workers=True': 'expected num_workers of at least 1 with it',
    'train_dataloader.sampler=None': 'train_dataloader.sampler: expected a dict with a',
    'train_dataloader.sampler.type=RatioSampler': "'RatioInfiniteSampler'",  # others may be near, too
    'train_dataloader.dataset=3': 'train_dataloader.dataset: expected a dict with a',
    'train_dataloader.dataset.datasets=[]': 'expected a list of at least one dataset, but got []',
    _SIDE + 'pipeline=[]': 'pipeline: expected a list of at least one transform, but got []',
    _SIDE + 'pipeline=None': 'pipeline: expected a list of at least one transform, but got None',
    _SIDE + 'pipeline.0=3': 'does not fit the config',
    _SIDE + 'pipeline.0.type=genseg_mm.TextPromt': "did you mean 'TextPrompt'",
    _SIDE + 'type=genseg_mm.ShapeDataset': "did you mean 'ShapesDataset'",
    _SIDE + 'image_size=0': 'image_size: expected (height, width), two integers of at least 1, but got 0',
    _SIDE + 'image_size=big': "but got 'big'",
    _SIDE + 'num_scene=3': "did you mean 'num_scenes'",
    'train_cfg.max_iters=0': 'train_cfg.max_iters: expected an integer of at least 1, but got 0',
    'train_cfg.max_iters=1e3': 'but got 1000.0',
    'train_cfg.max_iters=long': "but got 'long'",
    'train_cfg.val_interval=0': 'train_cfg.val_interval: expected an integer of at least 1, but got 0',
    'train_cfg.val_interval=-1': 'but got -1',
    'train_cfg.type=IterBasedLoop': 'train_cfg.type: there is no',
    'train_cfg=None': 'has no train_cfg',
    'model=None': 'has no model',
    'val_evaluator=None': 'val_evaluator is missing (None)',
    'val_evaluator=[]': 'val_evaluator: expected at least one metric, but got []',
    'val_evaluator.type=genseg_mm.ReferingMetric': "did you mean 'ReferringMetric'",
    'optim_wrapper.optimizer.lr=fast': "optim_wrapper.optimizer.lr: expected a number of at least 0, but got 'fast'",
    'optim_wrapper.optimizer.lr=-0.1': 'but got -0.1',
    'optim_wrapper.optimizer.weight_decay=-1': 'weight_decay: expected a number of at least 0, but got -1',
    'optim_wrapper.optimizer.betas=0.9': 'betas: expected two numbers from 0 up to, without, 1, but got 0.9',
    'optim_wrapper.optimizer.betas=(0.9,1.5)': 'betas: expected two numbers',
    'optim_wrapper.optimizer.type=Adamm': "did you mean 'Adam'",
    'optim_wrapper.optimizer=None': 'optim_wrapper.optimizer: expected a dict',
    'optim_wrapper.type=AmpOptimWraper': "did you mean 'AmpOptimWrapper'",
    'optim_wrapper.type=AmpOptimWrapper': 'needs a GPU, and none is visible',
    'optim_wrapper.accumulative_counts=0': 'accumulative_counts: expected an integer of at least 1, but got 0',
    'optim_wrapper.accumulative_counts=2.5': 'but got 2.5',
    'optim_wrapper.accumulative_counts=2': 'expected none, since global_batch_size says',
    'global_batch_size=24': 'global_batch_size: expected a multiple of 16',
    'optim_wrapper.clip_grad=1.0': 'clip_grad: expected dict(max_norm=1.0), or None, but got 1.0',
    'optim_wrapper.clip_grad.max_norm=-1': 'clip_grad.max_norm: expected a number above 0, but got -1',
    'optim_wrapper.clip_grad.max_nrom=1': "did you mean 'max_norm'",
    'param_scheduler=3': 'param_scheduler: expected a list of dicts, but got 3',
    'param_scheduler.0.end=-1': 'end: expected an integer of at least 0, but got -1',
    'param_scheduler.0.type=LinearLr': "did you mean 'LinearLR'",
    'param_scheduler.9.end=3': 'is a list of',
    'default_hooks.checkpoint.interval=0': 'checkpoint.interval: expected an integer of at least 1 or -1, but got 0',
    'default_hooks.checkpoint.interval=often': "but got 'often'",
    'default_hooks.checkpoint.max_keep_ckpts=0': 'max_keep_ckpts: expected an integer of at least 1 or -1, but got 0',
    'default_hooks.checkpoint.save_best=3': 'save_best: expected names of metrics, but got 3',
    'default_hooks.checkpoint.type=genseg_mm.SafeCheckpoint': "did you mean 'SafeCheckpointHook'",
    'default_hooks.checkpoint.intervall=3': "did you mean 'interval'",
    'default_hooks.logger.interval=0': 'default_hooks.logger.interval: expected an integer of at least 1',
    'default_hooks.checkpoint=3': 'default_hooks.checkpoint',
    'custom_hooks=3': 'custom_hooks: expected a list of dicts, but got 3',
    'custom_hooks=[3]': "custom_hooks.0: expected a dict with a 'type', but got 3",
    'log_processor.window_size=0': 'log_processor.window_size: expected an integer of at least 1, but got 0',
    'log_level=LOUD': "INFO, DEBUG, NOTSET, but got 'LOUD'",
    'randomness.seed=-1': 'randomness.seed: expected an integer from 0 to 2**32 - 1, or None, but got -1',
    'randomness.seed=lucky': "but got 'lucky'",
    'randomness.seed=4294967296': 'but got 4294967296',
    'randomness=3': 'randomness: expected a dict, but got 3',
    'auto_scale_lr.base_batch_size=0': 'auto_scale_lr.base_batch_size: expected an integer of at least 1',
    'env_cfg=3': 'env_cfg: expected a dict, but got 3',
    'env_cfg=None': 'env_cfg: expected a dict, but got None',
    'compile=yes': "compile: expected True, False or a dict for torch.compile, but got 'yes'",
    'compile.mod=x': "did you mean 'mode'",
    'resume=maybe': "resume: expected True, False or 'auto', but got 'maybe'",
    'default_scope=nothing_here': "default_scope: expected the name of an installed package, but got 'nothing_here'",
    'val_cfg=None': 'validation needs val_dataloader, val_cfg, val_evaluator together',
    "custom_hooks=[{'type':'EMAHok','momentum':0.1}]": "there is no 'EMAHok' in any registry; did you mean 'EMAHook'",
    "custom_hooks=[{'type':'EMAHook']": 'expected a dict as Python writes it',
    "custom_hooks=[{{'type':'EMAHook'}}]": 'expected a dict as Python writes it',
    'load_from={}/none.pth': 'none.pth does not exist',
    'load_from=http://127.0.0.1:9/a.pth': 'checkpoint http://127.0.0.1:9/a.pth cannot be reached: [Errno 111]',
    'default_hooks.checkpoint.save_best=oIuU': 'expected metrics of the evaluation, whose names hold one of',
    'load_from=http://127.0.0.1:9/\t.pth': 'cannot be reached: URL can',
    'default_hooks.checkpoint.rule=more': 'default_hooks.checkpoint: rule must be greater, less or None, but got more',
    'default_hooks.checkpoint.save_begin=-1': 'default_hooks.checkpoint: save_begin should not be less than 0',
    'load_from=3': 'load_from: expected a text, but got 3',
    'model.type=genseg_mm.GenMsk': "did you mean 'GenMask'",
    'model.backbone.type=genseg_mm.DitBackbone': "did you mean 'DiTBackbone'",
    'model.seeed=3': "nothing reads 'seeed' in model (genseg_mm.GenMask); did you mean 'seed'",
    'model.seed=lucky': "model.seed: expected an integer, but got 'lucky'",
    'model.image_condition=yes': "model.image_condition: expected True or False, but got 'yes'",
    'model.generation.guidance=3': "nothing reads 'guidance' in model.generation; did you mean 'guidance_scale'",
    'model.backbone.lora.rnak=3': "nothing reads 'rnak' in model.backbone.lora",
    _SIDE + 'num_scenes=many': "num_scenes: expected an integer, but got 'many'",
    'train_dataloader.collate_fn.type=pseudo_colate': "there is no 'pseudo_colate' in any registry",
    'accumulate=32': "the config has no 'accumulate'; set global_batch_size",
    'qwen=x': "the config has no 'qwen'",
    'image_size=[64,64]': "the config has no 'image_size'",
    'max_iters=5': "'max_iters' is a variable that only the code of the config file reads",
    'train_pipeline=[]': "'train_pipeline' is a variable that only the code of the config file reads",
    'trian_cfg.max_iters=3': "did you mean 'train_cfg'",
    'train_cfg.max_iter=3': "did you mean 'max_iters'",
    'randomness.sed=3': "did you mean 'seed'",
    'visualizer.vis_backends.0.type=TensorbordVisBackend': "did you mean 'TensorboardVisBackend'",
}  # fmt: skip

_BAD_FILES = {
    'syntax': 'syntax.py is not a valid config: line 1: ',
    'name_error': "line 2: NameError: name 'undefined_name' is not defined",
    'division': 'line 1: ZeroDivisionError: division by zero',
    'raises': 'line 1: RuntimeError: two lines',
    'asserts': 'line 1: AssertionError',
    'exits': 'it ends the program (exit 3)',
    'no_base': 'nowhere.py does not exist, which this config reads or inherits from (_base_)',
    'own_base': 'it inherits from itself (_base_)',
    'heir': 'heir.py inherits from it) is not a valid config: line 1: ZeroDivisionError',
    'no_mmseg_file': 'nowhere.py does not exist',
    'no_package': 'specify the package name',
    'custom_import': "Failed to import custom modules from {'imports': ['no_such_module']}",
    'twice': "Duplicate keys: {'x'}",
    'merges': 'in child config cannot inherit from base',
    'reserved': 'filename is reserved for config file',
    'null_bytes': 'null bytes',
    'no_model': 'no_model.py has no model, which training needs',
    'only_model': 'only_model.py has no train_dataloader',
    'reads_file': '/no/such/file.txt does not exist',
}

# (tool, arguments, what the line must hold)
TOOL_CASES = [
    *[('train.py', _TRAIN + option, expected) for option, expected in _OPTIONS.items()],
    *[('train.py', f'{{}}/{name}.py', expected) for name, expected in _BAD_FILES.items()],
    ('train.py', '{}/list.yml', 'expected keys with values at its top'),
    ('train.py', '{}/cut.json', 'cut.json is not a valid config: '),
    ('train.py', '{}/file.txt', 'file.txt is not a config (.py, .yml, .yaml or .json)'),
    ('train.py', '{}', 'is a folder'),
    ('train.py', 'genmask_sana_shapes_tiy', 'did you mean genmask_sana_shapes_tiny'),
    (
        'train.py',
        'gen2seg_unet_objects_tiny --work-dir {}/run --cfg-options train_dataloader.dataset.bank={}/none',
        'no bank of objects',
    ),
    ('train.py', 'configs/genmask/refcoc.py', 'did you mean genmask/refcoco'),
    ('train.py', f'{TINY} --work-dir {{}}/file.txt', 'is a file, expected a folder'),
    ('train.py', f'{TINY} --work-dir {{}}/file.txt/run', 'is a file, expected a folder'),
    ('train.py', f'{TINY} --work-dir {{}}/run --resume {{}}/none.pth', 'none.pth does not exist'),
    ('train.py', f'{TINY} --work-dir {{}}/run --launcher pytorch', 'expects the variable RANK'),
    ('test.py', f'{TINY} {{}}/none.pth --work-dir {{}}/run', 'none.pth does not exist'),
    ('test.py', f'{TINY} --work-dir {{}}/run', f'{TINY}: expected a checkpoint, since no trained weights come with'),
    ('test.py', f'{TINY} {{}}/none.pth --out a.pkl --work-dir {{}}/run', 'does not exist'),
    ('test.py', f'{TINY} {{}}/file.txt --out a.json --work-dir {{}}/run', 'expected a file that ends in .pkl'),
    ('test.py', f'{TINY} {{}}/file.txt --tta --work-dir {{}}/run', '--tta needs tta_model and tta_pipeline'),
    ('test.py', f'{TINY} {{}}/file.txt --wait-time nan --work-dir {{}}/run', 'expected a finite number, but got nan'),
    ('benchmark.py', 'tinny', 'config tinny does not exist'),
    ('benchmark.py', 'tiny --only nothing', "has no benchmark 'nothing'"),
    ('benchmark.py', 'tiny nothing', "but got 'nothing'"),
    ('benchmark.py', 'tiny --out {}/file.txt', 'is a file, expected a folder'),
    ('benchmark.py', f'{TINY}', 'is not a suite'),
    ('image_demo.py', '{}/none.png {}/colorer.py --weights {}/weights.pth', 'none.png'),
    ('image_demo.py', '{}/picture.png {}/colorer.py', 'expected its trained --weights, but got none'),
    ('image_demo.py', '{}/picture.png {}/colorer.py --weights {}/none.pth --device cpu', 'none.pth does not exist'),
    ('image_demo.py', '{}/picture.png {}/colorer.py --weights {}/file.txt --device cpu', 'file.txt'),
    ('image_demo.py', '{}/picture.png {}/colorer.py --weights {}/other.pth --device cpu', 'do not fit the model'),
    ('image_demo.py', '{}/picture.png {}/colorer.py --weights {}/weights.pth --points 5', 'expected X,Y or X,Y,LABEL'),
    ('image_demo.py', '{}/picture.png {}/colorer.py --weights {}/weights.pth --boxes 1,2', 'expected X0,Y0,X1,Y1'),
    ('image_demo.py', '{}/file.txt {}/colorer.py --weights {}/weights.pth --device cpu --out-dir {}/out', 'file.txt'),
    ('image_demo.py', '{}/picture.png owner/nothing', 'owner/nothing'),
    ('image_demo.py', '{}/none.mp4 {}/colorer.py --weights {}/weights.pth --device cpu', 'none.mp4'),
    (
        'image_demo.py',
        '{}/picture.png {}/colorer.py --weights {}/weights.pth --out {}/a.png',
        '--out: expected a file that ends',
    ),
    ('label_studio_backend.py', f'{TINY} --data-root {{}}', 'train it with'),
    (
        'label_studio_backend.py',
        '{}/colorer.py --weights {}/weights.pth --data-root {}/none --device cpu',
        'does not exist',
    ),
    (
        'label_studio_backend.py',
        '{}/colorer.py --weights {}/weights.pth --data-root {} --device cpu --port 70000',
        'choose another --host or --port',
    ),
    ('image_demo.py', '{}/picture.png {}/hub.py --weights {}/weights.pth --device cpu', 'hf download owner/nothing'),
    ('analysis_tools/print_config.py', f'{TINY} --get model.generatoin', "did you mean 'generation'"),
    ('analysis_tools/print_config.py', f'{TINY} --save-path a.txt', '--save-path: expected a file that ends in .py or'),
    ('model_converters/publish_model.py', '{}/weights.pth {}/out.pth', 'OUT must end in .safetensors'),
    ('model_converters/publish_model.py', '{}/file.txt {}/out.safetensors', 'file.txt is truncated, or not a file'),
    ('dataset_tools/verify_dataset.py', '{}/no_model.py', 'has no dataset'),
]

_INFER = "GenSegInferencer(folder + '/colorer.py', folder + '/weights.pth', device='cpu')"
_GONE = "data_root='/nowhere', ann_file='a.json'"
# (code, what the line must hold)


def _file(name: str = 'a.jpg', **changes: object) -> str:
    """A file of one picture and one object in COCO's format."""
    own = dict(id=1, image_id=1, category_id=1, bbox=[2, 2, 9, 9], area=81, segmentation=[])
    images, categories = [dict(id=1, file_name=name, height=20, width=30)], [dict(id=1, name='x')]
    return json.dumps(dict(images=images, categories=categories, annotations=[{**own, **changes}]))


# Files of text that are damaged or hostile.
ANNOTATIONS = {
    'deep.json': '[' * 100_000 + ']' * 100_000,
    'doubled.json': '{"images": 1, "images": 2}',
    'half.json': '{"images": [',
    'bbox.json': _file(bbox=[None, 2, 9, 9]),
    'negative.json': _file(bbox=[2, 2, -9, 9]),
    'nan.json': _file(area=float('nan')),
    'crowd.json': _file(iscrowd='0'),
    'text_id.json': _file(id='1'),
    'flat.json': _file(segmentation=[2, 2, 9, 2, 9, 9]),
    'outside.json': _file('../../etc/a.jpg'),
    'absolute.json': _file('/etc/hostname'),
    'latin.csv': 'image,text\na.jpg,caf\xe9\n'.encode('latin-1'),
    'utf16.csv': 'image,text\na.jpg,x\n'.encode('utf-16-le'),
    'quotes.csv': 'image,text\na.jpg,x\nb.jpg,"big" dog\n',
    'cells.csv': 'image,text\na.jpg,a dog, running\n',
    'number.jsonl': '{"image": "a.jpg", "text": "x"}\n{"image": "b.jpg", "text": 7}\n',
    'broken.jsonl': '{"image": "a.jpg", "text": "x"}\n{"image"\n',
    'away.tsv': 'image\ttext\n../../etc/a.jpg\tx\n',
    'tuple.p': b'\x80\x02K\x01K\x02\x86.',
    'system.p': b"cos\nsystem\n(S'true'\ntR.",
    'lists.p': b']' * 5000 + b'a' * 4999 + b'.',
    'page.tar': '<!DOCTYPE html>',
}


def _coco(name: str) -> str:
    where = f"data_root=folder + '/d', ann_file='{name}', data_prefix=dict(img='')"
    return f"DATASETS.build(dict(type='genseg_mm.CocoInstanceDataset', {where}))"


def _list(name: str) -> str:
    return f"DATASETS.build(dict(type='genseg_mm.ImageTextDataset', data_root=folder + '/d', sources='{name}'))"


READER_CASES = [
    (_coco('deep.json'), 'deep.json is not a whole JSON file: it is nested deeper than 100'),
    (_coco('doubled.json'), "doubled.json is not a whole JSON file: the key 'images' comes twice"),
    (_coco('half.json'), 'half.json is not a whole JSON file'),
    (_coco('bbox.json'), 'bbox.json, annotations[0]: bbox must be [x, y, width, height]'),
    (_coco('negative.json'), 'but got [2, 2, -9, 9] (id 1)'),
    (_coco('nan.json'), 'area must be a number from 0 on, but got nan'),
    (_coco('crowd.json'), "iscrowd must be 0 or 1, but got '0'"),
    (_coco('text_id.json'), "id must be int (a whole number of 64 bits), but got '1'"),
    (_coco('flat.json'), 'segmentation must be a list of polygons or an RLE dict'),
    (_coco('outside.json'), 'outside.json, image 1: expected a picture below'),
    (_coco('absolute.json'), "'/etc/hostname', which leads elsewhere"),
    (_list('latin.csv'), 'latin.csv, line 2: expected UTF-8, but got the byte 0xe9'),
    (_list('utf16.csv'), 'as of UTF-16 without a byte order mark: save it as UTF-8'),
    (_list('quotes.csv'), 'quotes.csv, line 3:'),
    (_list('cells.csv'), 'cells.csv, line 2: expected 2 cells, but got 3'),
    (_list('number.jsonl'), 'number.jsonl, line 2: expected a string or a list of strings, but got 7'),
    (_list('broken.jsonl'), 'broken.jsonl, line 2 is no JSON'),
    (_list('away.tsv'), 'away.tsv, line 2: expected a picture below'),
    (_list('page.tar'), 'page.tar is no uncompressed tar'),
    ("load_plain_pickle(folder + '/d/tuple.p')", 'tuple.p is not a whole pickle of plain data'),
    ("load_plain_pickle(folder + '/d/system.p')", 'system.p is refused: it asks to load os.system'),
    ("load_plain_pickle(folder + '/d/lists.p')", 'nested deeper than 100'),
    ("load_plain_pickle(folder + '/d/none.p')", 'there is no file'),
    ('read_json(folder)', 'is a folder or a device'),
]
PYTHON_CASES = [
    *READER_CASES,
    ("GenSegInferencer('none.py')", 'none.py'),
    ('GenSegInferencer(3)', 'model must be'),
    ("GenSegInferencer(folder + '/syntax.py')", 'is not a valid config: line 1'),
    ("GenSegInferencer(folder + '/no_model.py')", "has no key 'model'"),
    ("GenSegInferencer(folder + '/colorer.py', 'none.pth')", 'none.pth does not exist'),
    ("GenSegInferencer(folder + '/colorer.py', 'https://a.b/c.pth')", 'download them first'),
    ("GenSegInferencer(folder + '/colorer.py', folder + '/other.pth')", 'do not fit the model'),
    ("GenSegInferencer(folder + '/colorer.py', folder + '/file.txt')", 'file.txt'),
    ("GenSegInferencer(folder + '/colorer.py', folder + '/weights.pth', device='cuda')", 'device cuda is not here'),
    ("GenSegInferencer(folder + '/colorer.py', folder + '/weights.pth', device='gpu')", "but got 'gpu'"),
    ("GenSegInferencer(folder + '/hub.py')", 'hf download owner/nothing --include "vae/*" --local-dir FOLDER'),
    ("GenSegInferencer(folder + '/hub_text.py')", 'owner/nothing (config.json) is neither here nor in the cache'),
    ("GenSegInferencer(folder + '/no_folder.py')", 'expected a folder or a hub id (owner/name)'),
    ("GenSegInferencer.from_pretrained('no/such/folder')", 'no such folder'),
    ('GenSegInferencer.from_pretrained(folder)', 'is not a released colorer'),
    (f"{_INFER}('none.png')", 'none.png'),
    (f"{_INFER}(folder + '/file.txt')", 'file.txt'),
    (f"{_INFER}(folder + '/picture.png', points=[[500, 1]])", 'points'),
    (f"{_INFER}(folder + '/picture.png', points=[[1, 2, 3]])", 'points'),
    (f"{_INFER}(folder + '/picture.png', boxes=[[1, 2]])", 'boxes'),
    (f"{_INFER}(folder + '/picture.png', texts='a circle')", 'texts'),
    (f"{_INFER}(folder + '/picture.png', batch_size=0)", 'batch_size'),
    (f"{_INFER}(folder + '/picture.png', image_size=0)", 'image_size'),
    (f"{_INFER}(folder + '/picture.png', points=[[10**400, 1]])", 'points: expected numbers'),
    (f"{_INFER}(folder + '/picture.png', image_size=10**6)", 'expected at most 100000000 pixels'),
    (f"{_INFER}(folder + '/picture.png', automatic=3)", 'automatic: expected settings, True or None, but got 3'),
    (f"{_INFER}(folder + '/picture.png', automatic=dict(least=3))", 'automatic: expected settings out of'),
    (f"{_INFER}(folder + '/picture.png', prompting=3)", 'prompting: expected a dict of settings or None, but got 3'),
    (f"{_INFER}(folder + '/picture.png', prompting=dict(rule='x', radius=5))", "rule: expected 'reference' or 'paper'"),
    (f"{_INFER}(folder + '/picture.png', out_dir=5)", 'out_dir expects the name of a folder, but got 5'),
    ("GenSegInferencer(folder + '/colorer.py', folder)", 'is a folder, expected one of the files in it'),
    ("GenSegInferencer('gen2seg_unet_shapes_lng_tiny')", 'did you mean gen2seg_unet_shapes_long_tiny'),
    (f"{_INFER}(folder + '/picture.png', task='paint')", "task must be 'segment' or 'generate'"),
    ('read_config_file(folder)', 'is a folder'),
    (f"DATASETS.build(dict(type='genseg_mm.CocoCaptionsDataset', {_GONE}))", '/nowhere/a.json'),
    (f"DATASETS.build(dict(type='genseg_mm.RefCOCODataset', {_GONE}, split_file='b'))", "'/nowhere' is not a folder"),
    (f"DATASETS.build(dict(type='genseg_mm.CocoInstanceDataset', {_GONE}))", '/nowhere/a.json'),
]  # fmt: skip


def make_files(folder: Path) -> None:
    """Writes the files that the cases name."""
    import torch
    from PIL import Image

    for name, text in CONFIGS.items():
        (folder / f'{name}.py').write_text(text)
    (folder / 'd').mkdir()
    for name, content in ANNOTATIONS.items():
        (folder / 'd' / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / 'list.yml').write_text('- 1\n- 2\n')
    (folder / 'cut.json').write_text('{"model": ')
    (folder / 'file.txt').write_text('no picture, no checkpoint\n')
    Image.new('RGB', (20, 12), (200, 30, 30)).save(folder / 'picture.png')
    torch.save({'colorer.weight': torch.eye(3).reshape(3, 3, 1, 1)}, folder / 'weights.pth')
    torch.save({'colorer.weight': torch.zeros(5, 3, 1, 1)}, folder / 'other.pth')


def names(folder: Path) -> dict:
    """What the lines of Python use."""
    from mmengine.registry import DATASETS

    from genseg_mm.config_file import read_config_file
    from genseg_mm.files import read_json
    from genseg_mm.files.pickles import load_plain_pickle
    from genseg_mm.inferencers import GenSegInferencer

    return dict(
        folder=str(folder),
        DATASETS=DATASETS,
        GenSegInferencer=GenSegInferencer,
        load_plain_pickle=load_plain_pickle,
        read_config_file=read_config_file,
        read_json=read_json,
    )
