"""A graph as a torch.export program, with as many free dimensions as it allows."""

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.export import Dim, ExportedProgram

from genseg_mm.exporting.graphs import ExportedGraph, MaskGraph, size_for

# diffusers' UNet takes another way from 64 pictures on.
MAX_BATCH = 63
MAX_SIDES = (8192, 1024)  # some families have positions up to a size
# diffusers' UNet compares sides with 2 ** num_upsamplers, to resize by sizes and no longer by factors where they are no
# multiples; with this many they never are, so that one graph serves all sizes, and gives the same.
_ALWAYS_BY_SIZES = 30
_NO_TRACES = 'do_not_emit_stack_traces'  # of torch.fx.config; older versions do not read it


class Program(NamedTuple):
    """An exported graph.

    Attributes:
        program: It.
        graph: What it was made of.
        shapes: Shapes of the inputs and, last, of the output, by name; free dimensions by their names.
        size: (height, width) in pixels of pictures that it takes.
    """

    program: ExportedProgram
    graph: ExportedGraph
    shapes: dict[str, list[int | str]]
    size: tuple[int, int]

    @property
    def free(self) -> list[str]:
        """Names of the free dimensions."""
        return free_names(self.shapes)

    def trial_sizes(self) -> list[tuple[int, tuple[int, int]]]:
        """Numbers and sizes of pictures to compare outputs at: the program's own, and others that it takes."""
        (rows, columns), (height, width) = self.graph.multiples, self.size
        numbers = [1, 3] if 'batch' in self.free else [1, 1]
        other = (height + rows, max(2, width // columns - 1) * columns) if 'height' in self.free else self.size
        return list(zip(numbers, (self.size, other), strict=True))


def programs_of(graph: ExportedGraph, size: tuple[int, int] | None, refused: list[str]) -> Iterator[Program]:
    """Programs of a graph, that with most free dimensions first: batch, height and width, length of prompts.

    What torch exports may still be bound to the sizes that it was exported with, in a way that only a run with others
    shows, so that the caller tries and goes on to the next.

    Args:
        graph: The model.
        size: (height, width) of the pictures; None: free if possible, else that which the model works at.
        refused: Gets a line on each that could not be exported.

    Raises:
        ValueError: If the size does not fit the model.
    """
    steps = graph.multiples
    if size is not None and any(side % step or side < step for side, step in zip(size, steps, strict=True)):
        raise ValueError(f'--size must be multiples of {steps[0]} and {steps[1]} pixels for this model, but got {size}')
    has_size = size is not None or getattr(graph, 'noise', None) is not None
    sides = () if has_size else MAX_SIDES
    tries: list[tuple[bool, int | None]] = [*((True, side) for side in sides), (True, None), (False, None)]
    for free_batch, longest in tries:
        try:
            chosen = _chosen_size(graph, size, longest)
        except ValueError as error:
            refused.append(str(error))
            continue
        examples = graph.examples(2 if free_batch else 1, chosen)
        dims = _free_dims(graph, examples, free_batch, longest)
        shapes = _shapes(graph, examples, dims)
        try:
            with torch.no_grad(), sizes_not_factors(graph), without_dumps():
                program = torch.export.export(graph, examples, dynamic_shapes=tuple(dims), strict=False)
        except Exception as error:  # whatever a model's own code says to a tensor without values
            refused.append(refusal(shapes, error))
            continue
        yield Program(program, graph, shapes, chosen)


def refusal(shapes: dict[str, list[int | str]], error: Exception) -> str:
    """Why a graph is not to be had with these free dimensions, in a line."""
    return f'{", ".join(free_names(shapes)) or "nothing"} free: {type(error).__name__}: {_first_line(error)}'


def free_names(shapes: dict[str, list[int | str]]) -> list[str]:
    """Names of the free dimensions."""
    return list(dict.fromkeys(own for shape in shapes.values() for own in shape if isinstance(own, str)))


def _chosen_size(graph: ExportedGraph, size: tuple[int, int] | None, longest: int | None) -> tuple[int, int]:
    """Pictures to export with: of the size asked for or wanted; where it is free, of two different sides."""
    if size is not None or longest is None:
        return size or size_for(graph.model)
    try:
        wanted = size_for(graph.model)
    except ValueError:
        wanted = (64, 64)
    height, width = (max(4, side // step) * step for side, step in zip(wanted, graph.multiples, strict=True))
    return height, width + graph.multiples[1]


def _free_dims(
    graph: ExportedGraph, examples: tuple[torch.Tensor, ...], free_batch: bool, longest: int | None
) -> list[dict[int, Any]]:
    batch = {0: Dim('batch', min=1, max=MAX_BATCH)} if free_batch else {}
    image = dict(batch)
    if longest is not None:
        for place, name, step in ((2, 'height', graph.multiples[0]), (3, 'width', graph.multiples[1])):
            dim = Dim(f'{name}_cells' if step > 1 else name, min=2, max=longest // step)
            image[place] = step * dim if step > 1 else dim
    tokens = None
    if isinstance(graph, MaskGraph) and len(examples) > 1 and free_batch and graph.has_free_length:
        tokens = Dim('tokens', min=2, max=4096)
    lengths = ({} if tokens is None or name == 'prompt_pooled' else {1: tokens} for name in graph.inputs[1:])
    return [image, *({**batch, **length} for length in lengths)]


def _names(dim: dict[int, Any]) -> dict[int, str]:
    return {place: {2: 'height', 3: 'width'}.get(place) or own.__name__ for place, own in dim.items()}


def _shapes(
    graph: ExportedGraph, examples: tuple[torch.Tensor, ...], dims: list[dict[int, Any]]
) -> dict[str, list[int | str]]:
    shapes: dict[str, list[int | str]] = {}
    for name, example, dim in zip(graph.inputs, examples, dims, strict=True):
        free = _names(dim)
        shapes[name] = [free.get(place, side) for place, side in enumerate(example.shape)]
    picture = shapes['image']
    shapes[graph.output] = [picture[0], 1 if isinstance(graph, MaskGraph) else 3, *picture[2:]]
    return shapes


@contextlib.contextmanager
def sizes_not_factors(graph: ExportedGraph) -> Iterator[None]:
    """Has diffusers' UNets resize by sizes, see ``_ALWAYS_BY_SIZES``."""
    unets = [own for own in graph.modules() if hasattr(own, 'num_upsamplers')]
    before = [own.num_upsamplers for own in unets]
    upsampling = sys.modules.get('diffusers.models.upsampling')
    try:
        for own in unets:
            own.num_upsamplers = _ALWAYS_BY_SIZES
        if upsampling is not None:
            # Its only max() compares the factors of both sides, to make large tensors contiguous; the comparison would
            # become a condition on the sizes of pictures.
            upsampling.max = lambda _: 2
        yield
    finally:
        for own, number in zip(unets, before, strict=True):
            own.num_upsamplers = number
        if upsampling is not None:
            del upsampling.max


@contextlib.contextmanager
def without_dumps() -> Iterator[None]:
    """Holds back the whole graphs that torch prints where it gives up, and lines of source for each of their nodes.

    The latter take a tenth of the time, and no file keeps them, for they name places on this machine.
    """
    before, traces = logging.root.manager.disable, getattr(torch.fx.config, _NO_TRACES, False)
    logging.disable(logging.CRITICAL)
    setattr(torch.fx.config, _NO_TRACES, True)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
        setattr(torch.fx.config, _NO_TRACES, traces)


def _first_line(error: Exception) -> str:
    lines = [own.strip(' -') for own in str(error).splitlines() if own.strip()]
    # The first line only names the constraint; the second says what broke it.
    chosen = lines[1] if len(lines) > 1 and lines[0].startswith('Constraints violated') else (lines or ['no reason'])[0]
    return ' '.join(chosen.split())[:240]
