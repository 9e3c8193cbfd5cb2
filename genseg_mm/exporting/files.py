"""Programs as files: written, opened again by what will run them, compared with the model, timed."""

import glob
import json
import re
import time
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from genseg_mm.exporting.graphs import ExportedGraph
from genseg_mm.exporting.programs import Program, programs_of, refusal, without_dumps
from genseg_mm.files.whole_files import explained, publish, scratch_folder

FORMATS = ('onnx', 'torch')
METADATA = 'genseg_mm'  # key of the JSON in an ONNX file's metadata_props; genseg_mm.json in a .pt2
TOLERANCE = 1e-3  # of the output's range
OPSET = 20
_WEIGHTS = '.data'
_LARGEST_IN_ONE_FILE = 1_800_000_000  # protobuf stops at 2 GiB; beyond it, ONNX keeps weights in a second file
Runner = Callable[[tuple[Tensor, ...]], np.ndarray]


class Check(NamedTuple):
    """A file against its model.

    Attributes:
        difference: Largest difference of their outputs over all trials, in units of the output.
        share: The same as a share of the output's range.
        trials: Shapes of the pictures that were compared.
    """

    difference: float
    share: float
    trials: list[tuple[int, ...]]


class Written(NamedTuple):
    """A file that does what its model does.

    Attributes:
        made: The program in it.
        check: The comparison.
        refused: Why more dimensions are not free, a line for each attempt.
    """

    made: Program
    check: Check
    refused: list[str]


def metadata_of(made: Program, form: str) -> dict[str, Any]:
    """What a file says of itself, JSON's types alone."""
    shapes = {name: list(shape) for name, shape in made.shapes.items()}
    return dict(format_version=1, made_for=form, **made.graph.describe(), shapes=shapes, free=made.free)


def write_file(
    graph: ExportedGraph,
    out: Path,
    form: str,
    size: tuple[int, int] | None = None,
    tolerance: float = TOLERANCE,
) -> Written:
    """Writes a graph, opens what was written, and gives it its name if it does what the model does.

    Of height, width and batch as many are free as work; the file is run with other sizes than it was exported with.

    Args:
        graph: The model.
        out: The file, ``.onnx`` or ``.pt2``.
        form: 'onnx' or 'torch'.
        size: (height, width) of the pictures; None: free if possible.
        tolerance: Largest difference of outputs, as a share of their range.

    Raises:
        ImportError: If what writes or runs ONNX is not installed.
        ValueError: If it cannot be exported, or the outputs differ by more.
        WriteError: If it cannot be written.
    """
    if form == 'onnx':
        need_onnx()
    refused: list[str] = []
    with explained(out), scratch_folder(out) as temporary:
        for made in programs_of(graph, size, refused):
            place = temporary / out.name
            try:
                if form == 'onnx':
                    compare(made, _runner_of(made.program))  # sooner than by a file that takes long to be written
                (_write_onnx if form == 'onnx' else _write_torch)(made, place)
                check = compare(made, open_file(place, form))
            except (OSError, MemoryError):
                raise
            except Exception as error:  # of the exporters, and of what runs the file
                refused.append(refusal(made.shapes, error))
                continue
            if check.share <= tolerance:  # NaN is not
                _publish(temporary, out)
                return Written(made, check, refused)
            refused.append(
                f'{", ".join(made.free) or "nothing"} free: the output differs from that of the model by '
                f'{check.difference:.3g}, {check.share:.2e} of its range, but expected at most {tolerance:g} '
                '(--tolerance)'
            )
    raise ValueError(f'{out} was not written, {type(graph.model).__name__} cannot be exported: {"; ".join(refused)}')


def _publish(folder: Path, out: Path) -> None:
    """Moves a file to its name, its weights first where they are in a second one, whose name is no other export's.

    At any time the file that has the name finds the weights that it was written with.
    """
    weights = [own for own in folder.iterdir() if own.name != out.name]
    for own in weights:
        publish(own, out.parent / own.name)
    publish(folder / out.name, out)
    kept = {own.name for own in weights}
    for own in out.parent.glob(f'{glob.escape(out.name)}.*{_WEIGHTS}'):  # of an earlier one
        if own.name not in kept and re.fullmatch(r'[0-9a-f]{8}', own.name[len(out.name) + 1 : -len(_WEIGHTS)]):
            own.unlink()


def need_onnx() -> None:
    """Raises ImportError in one line if ONNX files cannot be written or run here."""
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(f"ONNX needs {name}, which is not installed: pip install 'genseg_mm[onnx]'") from error


def open_file(path: Path, form: str, threads: int | None = None) -> Runner:
    """What runs a file on the CPU: inputs as tensors to the output as an array.

    Args:
        path: The file.
        form: 'onnx' or 'torch'.
        threads: Of onnxruntime; default: its own choice.
    """
    if form == 'torch':
        return _runner_of(torch.export.load(path))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    names = [own.name for own in session.get_inputs()]

    def run_session(inputs: tuple[Tensor, ...]) -> np.ndarray:
        return session.run(None, {name: own.numpy() for name, own in zip(names, inputs, strict=True)})[0]

    return run_session


def _runner_of(program: ExportedProgram) -> Runner:
    module = program.module()

    def run(inputs: tuple[Tensor, ...]) -> np.ndarray:
        with torch.no_grad():
            return module(*inputs).numpy()

    return run


def compare(made: Program, runner: Runner) -> Check:
    """The file and the model on noise, at the program's size and, where sizes and numbers are free, at others."""
    largest, trials = 0.0, []
    for num, size in made.trial_sizes():
        inputs = made.graph.examples(num, size)
        with torch.no_grad():
            wanted = made.graph(*inputs).numpy()
        found = runner(inputs)
        if found.shape != wanted.shape:
            raise ValueError(f'the file gives {found.shape} for pictures {tuple(inputs[0].shape)}, not {wanted.shape}')
        difference = float(np.abs(found - wanted).max())
        largest = max(largest, difference) if np.isfinite(difference) else float('nan')
        trials.append(tuple(inputs[0].shape))
    return Check(largest, largest / made.graph.span, trials)


def time_against_torch(made: Program, path: Path, form: str, rounds: int = 10) -> tuple[float, float]:
    """Median seconds of the file and of the model for one picture, one thread each, by turns."""
    inputs = made.graph.examples(1, made.size)
    runner = open_file(path, form, threads=1)
    times: list[list[float]] = [[], []]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for number in range(rounds + 2):
                for place, run in enumerate((lambda: runner(inputs), lambda: made.graph(*inputs))):
                    start = time.perf_counter()
                    run()
                    if number >= 2:
                        times[place].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return float(np.median(times[0])), float(np.median(times[1]))


def _write_torch(made: Program, path: Path) -> None:
    text = json.dumps(metadata_of(made, 'torch.export.load'), indent=1)
    torch.export.save(made.program, path, extra_files={f'{METADATA}.json': text})


def _write_onnx(made: Program, path: Path) -> None:
    import onnx_ir

    with warnings.catch_warnings(), without_dumps():
        warnings.simplefilter('ignore')
        written = torch.onnx.export(
            made.program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(made.graph.inputs),
            output_names=[made.graph.output],
        )
    model = written.model
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = onnx_ir.Shape(made.shapes[value.name])
    for node in onnx_ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()  # traces of this machine's paths
    model.metadata_props.clear()
    model.metadata_props[METADATA] = json.dumps(metadata_of(made, 'onnxruntime'))
    size = sum(own.nbytes for own in made.program.state_dict.values())
    weights = None
    if size > _LARGEST_IN_ONE_FILE:
        weights = f'{path.name}.{_crc(made.program.state_dict.values()):08x}{_WEIGHTS}'
    onnx_ir.save(model, path, external_data=weights)


def _crc(tensors: Iterable[Tensor]) -> int:
    crc = 0
    for own in tensors:
        flat = own.detach().cpu().contiguous().reshape(-1)
        crc = zlib.crc32(flat.view(torch.uint8).numpy(), crc) if flat.numel() else crc
    return crc
