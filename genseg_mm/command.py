"""The command ``genseg``: one table of the tools, and the call of one of them (stdlib only, nothing of ours).

``genseg train CONFIG`` is ``python tools/train.py CONFIG`` of the checkout, or of what the installed package ships.
"""

import difflib
import os
import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Command:
    """A row of the table.

    Attributes:
        name: As it is typed, ``train`` or, in a group, ``prepare objects``.
        tool: Its file below ``tools/``.
        summary: One line.
        example: What may follow the name.
    """

    name: str
    tool: str
    summary: str
    example: str


COMMANDS = (
    Command('train', 'train.py', 'train a model', 'gen2seg_unet_shapes_tiny --amp'),
    Command('test', 'test.py', 'evaluate a checkpoint, or a model by its name', 'gen2seg_unet_shapes_long_tiny'),
    Command(
        'predict',
        'image_demo.py',
        'masks and colour maps of pictures, or pictures of texts',
        'photo.jpg gen2seg_unet_objects_long_tiny --automatic',
    ),
    Command('models', 'models.py', 'the models that go by a name, and what they were measured at', 'genmask --weights'),
    Command('app', 'app.py', 'a page in the browser: clicks, boxes, words', 'gen2seg_unet_objects_long_tiny'),
    Command('benchmark', 'benchmark.py', 'measure models on a suite of benchmarks', 'tiny shipped_unet control_rgb'),
    Command(
        'compare',
        'analysis_tools/compare.py',
        'two results, item by item, with intervals',
        'work_dirs/benchmarks/tiny/shipped_unet/dram work_dirs/benchmarks/tiny/control_rgb/dram --out compared',
    ),
    Command(
        'speed',
        'benchmark_speed.py',
        'time what takes time, beside a yardstick and peers; a gate on the ratios',
        'loss_10 prompt_480x640 --repeat 3 --out speed',
    ),
    Command(
        'prepare own',
        'dataset_tools/prepare_own.py',
        'look at a folder of your own data and write a config that trains on it',
        'photos --model gen2seg-tiny --out photos.py --check',
    ),
    Command('prepare objects', 'dataset_tools/prepare_objects.py', 'fetch the objects of drawn scenes', ''),
    Command(
        'prepare hypersim',
        'dataset_tools/prepare_hypersim.py',
        'count the instances of Hypersim',
        'data/hypersim --out data/hypersim/index.csv --workers 8',
    ),
    Command(
        'prepare cache',
        'dataset_tools/cache_encodings.py',
        'encode a data set once, with the frozen encoders of a config',
        'refcoco --out caches/refcoco',
    ),
    Command(
        'prepare descriptions',
        'dataset_tools/write_descriptions.py',
        'let a language model refine the texts of a data set',
        'reasonseg_described descriptions.json --split val',
    ),
    Command(
        'prepare export-objects',
        'dataset_tools/export_objects.py',
        'write drawn scenes as COCO, RefCOCO, gRefCOCO and ReasonSeg',
        'exported --num 100 20 20',
    ),
    Command(
        'prepare tiny',
        'dataset_tools/make_tiny_benchmarks.py',
        'write tiny copies of every evaluation data set',
        'tiny_data --folders DRAM_processed BSDS500',
    ),
    Command(
        'verify',
        'dataset_tools/verify_dataset.py',
        'read every file of the data sets of a config',
        'refcoco --split val --workers 4',
    ),
    Command('browse', 'analysis_tools/browse_dataset.py', 'draw what a model gets', 'gen2seg_unet_shapes_tiny --num 8'),
    Command('rehearse', 'rehearse.py', 'run a full-size config in small, on a CPU', 'refcoco --width tiny'),
    Command('plan', 'plan.py', 'does a training fit into memory?', 'refcoco_qwen-image --gpus 8 --memory 80'),
    Command(
        'export',
        'export.py',
        'a model as a file that runs without this package',
        'gen2seg_unet_objects_long_tiny --format onnx --out unet.onnx',
    ),
    Command('completion', 'completion.py', 'what makes a shell complete the words of genseg', 'bash'),
    Command('doctor', 'doctor.py', 'what works on this machine, and what to type for the rest', '--json'),
)  # fmt: skip
GROUPS = dict(prepare='data sets, and what is computed of them once')

_called: tuple[Path, str] | None = None  # the tool that `genseg` runs in this process, and what was typed for it


def tools_folder() -> Path:
    """``tools/`` of the checkout, else that of the installed package."""
    return shipped_root() / 'tools'


def shipped_root() -> Path:
    """The folder of ``configs/``, ``tools/`` and ``model-index.yml``: the checkout, else ``.mim`` of the package."""
    checkout = _PACKAGE.parent
    return checkout if (checkout / 'model-index.yml').is_file() else _PACKAGE / '.mim'


def main(words: Sequence[str] | None = None) -> None:
    """Runs a tool as its own script would, or shows what there is.

    Args:
        words: What follows ``genseg``; default: of the command line.
    """
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ('-h', '--help', 'help'):
        _show(overview())
    elif words[0] in ('-V', '--version'):
        import genseg_mm

        print(f'genseg_mm {genseg_mm.__version__}')
    elif words[0] in GROUPS and (not words[1:] or words[1] in ('-h', '--help')):
        _show(overview(words[0]))
    else:
        _run(*find_tool(words))


def _show(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `genseg --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def overview(group: str = '') -> str:
    """The commands, or those of a group, a line each."""
    start = f'genseg {group}'.rstrip()
    rows = {own.name: own.summary for own in COMMANDS if own.name.startswith(f'{group} ' if group else '')}
    if group:
        rows = {name.removeprefix(f'{group} '): summary for name, summary in rows.items()}
    else:
        first = {name.partition(' ')[0]: summary for name, summary in rows.items()}
        rows = {name: GROUPS.get(name, summary) for name, summary in first.items()}
    width = max(map(len, rows)) + 2
    lines = [f'  {name:{width}}{summary}' for name, summary in rows.items()]
    more = f'`{start} COMMAND --help` has its options and an example.'
    if not group:
        more += ' Configs and trained models go by their names, too.'
        more += '\nEvery other tool goes by its file: `genseg analysis_tools/print_config.py CONFIG`.'
        more += '\nSeveral processes: `torchrun --nproc_per_node 8 -m genseg_mm train CONFIG --launcher pytorch`.'
    return '\n'.join([f'usage: {start} COMMAND [options]', '', *lines, '', more])


def find_tool(words: list[str]) -> tuple[Path, str, list[str]]:
    """Tool, what was typed for it, and its arguments."""
    table = {own.name: own for own in COMMANDS}
    for count in (2, 1):
        name = ' '.join(words[:count])
        if name in table:
            return tools_folder() / table[name].tool, f'genseg {name}', words[count:]
    file = tools_folder() / words[0]
    if words[0].endswith('.py') and tools_folder() in file.resolve().parents and file.is_file():
        return file, f'genseg {words[0]}', words[1:]
    group = words[0] if words[0] in GROUPS else ''
    typed = ' '.join(words[: 2 if group else 1])
    names = table if group else {name.partition(' ')[0] for name in table}
    near = difflib.get_close_matches(typed, names, 1)
    hint = f'; did you mean {near[0]!r}?' if near else ''
    raise SystemExit(_error(f'unknown command {typed!r}{hint}', f'`genseg {group}'.rstrip() + ' --help` lists them'))


def _error(message: str, remedy: str) -> int:
    print(f'error: {message} ({remedy})', file=sys.stderr)
    return 2


def _run(tool: Path, typed: str, arguments: list[str]) -> None:
    global _called
    if not tool.is_file():
        raise SystemExit(_error(f'{tool} is missing', 'install genseg_mm again'))
    _called = tool, typed
    # As Python starts a script: the files beside a tool are imported by their names.
    sys.argv[:] = [str(tool), *arguments]
    sys.path.insert(0, str(tool.parent))
    runpy.run_path(str(tool), run_name='__main__')


# ---- what tools say of themselves


def typed_name() -> str | None:
    """What was typed for the tool of this process, such as 'genseg train'; None if it runs by its file."""
    if _called is None or sys.argv[0] != str(_called[0]):
        return None
    return _called[1]


def typed_words(python: str = 'python') -> list[str]:
    """The command line of this process."""
    name = typed_name()
    return [*name.split(' '), *sys.argv[1:]] if name else [python, *sys.argv]


def example() -> str | None:
    """The example of the tool of this process, if ``genseg`` runs it."""
    name = typed_name()
    found = next((own for own in COMMANDS if f'genseg {own.name}' == name), None)
    return shlex.join([*name.split(' '), *shlex.split(found.example)]) if found else None


def as_typed(text: str) -> str:
    """A text in which tools have the names that they go by here: ``genseg train`` for ``python tools/train.py``."""
    if typed_name() is None:
        return text
    names = {own.tool: own.name for own in COMMANDS}
    return re.sub(r'\bpython tools/([\w/]+\.py)', lambda found: f'genseg {names.get(found[1], found[1])}', text)
