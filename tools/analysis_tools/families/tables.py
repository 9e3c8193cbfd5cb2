"""What a training needs of a card's memory, and the tables of measure_families.py. Bytes; 1 GB is 10^9 bytes."""

from collections.abc import Sequence
from typing import Any

GB = 1e9
CARD = 80 * GB  # of the 85 that an '80 GB' card has: the rest is left to the context and to fragments
CARDS = 8

# bytes per parameter: weights, gradients, AdamW's two moments
MIXED = 4 + 4 + 8  # float32 weights, bfloat16 by autocast
PURE = 2 + 2 + 4  # all bfloat16
AUTOCAST_COPY = 2  # bfloat16 copies of the weights, which autograd keeps where blocks are not computed again
FROZEN_WEIGHT = 2  # bfloat16
REGIMES = {'mixed': 'bf16 mixed', 'pure': 'pure bf16', 'lora': 'LoRA'}


def state_bytes(regime: str, parameters: int, adapters: int = 0) -> int:
    """Weights, gradients and AdamW states of the transformer.

    Args:
        regime: 'mixed' (float32 weights under autocast), 'pure' (all bfloat16) or 'lora' (frozen bfloat16 weights,
            trained parameters as in 'mixed').
        parameters: All parameters but the adapters.
        adapters: With 'lora': parameters that are trained.

    Raises:
        ValueError: If the regime is unknown.
    """
    if regime not in REGIMES:
        raise ValueError(f'regime must be one of {tuple(REGIMES)}, but got {regime!r}')
    if regime == 'lora':
        return FROZEN_WEIGHT * parameters + MIXED * adapters
    return (MIXED if regime == 'mixed' else PURE) * parameters


def where_it_fits(
    states: float, gathered: float, activations: dict[int, float], frozen: float, card: float = CARD
) -> str:
    """The smallest setting that a training fits, the largest batch first.

    Args:
        states: Weights, gradients and optimizer states.
        gathered: What FSDP gathers at a time: two blocks' weights.
        activations: Batch size per card -> activations.
        frozen: Autoencoder and prompt encoders; trainings from cached encodings have none.
        card: Memory of a card.
    """
    batches = sorted(activations, reverse=True)
    for cards, own in ((1, states), (CARDS, states / CARDS + gathered)):
        name = '1 card' if cards == 1 else f'{cards} cards, FSDP'
        for kept, remark in ((frozen, ''), (0, ', cached encodings')):
            for batch in batches:
                if own + activations[batch] + kept <= card:
                    return f'{name}, batch {batch}{"" if cards == 1 else " each"}{remark}'
    return f'more than {CARDS} cards'


def fits(model: dict[str, Any]) -> dict[str, str]:
    """Where each regime of a measured model fits, with gradient checkpointing."""
    frozen = model['vae_bytes'] + model['encoder_bytes']
    result = {}
    for regime in REGIMES:
        own = model['activations'][regime]
        states = state_bytes(regime, model['parameters'], model['adapters'])
        activations = {int(batch): cell['on'] for batch, cell in own.items()}
        gathered = 2 * FROZEN_WEIGHT * model['largest_block']
        result[regime] = where_it_fits(states, gathered, activations, frozen)
    return result


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f'| {" | ".join(header)} |', '|' + '---|' * len(header)]
    return '\n'.join([*lines, *(f'| {" | ".join(row)} |' for row in rows)]) + '\n'


def tiny_table(models: Sequence[dict[str, Any]]) -> str:
    """Tiny models: every number of memory as measured, and as estimated on the meta device."""
    columns = dict(
        off='kept for backward', on='kept, ckpt', autocast='kept, bf16 autocast', peak_off='peak', peak_on='peak, ckpt'
    )  # fmt: skip
    header = ['family', 'parameters', *(f'{name}, MB (estimate)' for name in columns.values())]
    header += ['step, ms', 'forward', 'backward', 'AdamW']
    rows = []
    for own in models:
        times = own['seconds']
        memory = [f'{own["measured"][key] / 1e6:.2f} ({own["estimated"][key] / 1e6:.2f})' for key in columns]
        seconds = [f'{1e3 * value:.1f}' for value in (sum(times.values()), *times.values())]
        rows.append([own['family'], str(own['parameters']), *memory, *seconds])
    return table(header, rows)


def parameters_table(models: Sequence[dict[str, Any]]) -> str:
    """Parameters against the published sizes, and the frozen parts."""
    header = [
        'model', 'family', 'parameters, M', 'stored tables, M', 'published, B', 'difference',
        'changed for GenMask, k', 'LoRA, M',
        'VAE, GB', 'its prompt encoders, GB', 'source of the config',
    ]  # fmt: skip
    rows = []
    for own in models:
        released, buffers = own['released_parameters'], own['released_buffers']
        rows.append(
            [
                own['name'],
                own['family'],
                f'{released / 1e6:.1f}',
                f'{buffers / 1e6:.1f}',
                f'{own["published"]:g}',
                f'{100 * ((released + buffers) / 1e9 / own["published"] - 1):+.1f} %',
                f'{(own["parameters"] - released) / 1e3:.1f}',
                f'{own["adapters"] / 1e6:.1f}',
                f'{own["vae_bytes"] / GB:.2f}',
                f'{own["encoder_bytes"] / GB:.2f} ({" + ".join(own["encoders"])})',
                own['source'],
            ]
        )
    return table(header, rows)


def memory_table(models: Sequence[dict[str, Any]]) -> str:
    """States and activations."""
    batches = sorted({int(batch) for own in models for batch in own['activations']['mixed']})
    header = ['model', *(f'states, {name}, GB' for name in REGIMES.values())]
    for batch in batches:
        header += [f'batch {batch}: activations, bf16 mixed, GB']
        header += [f'batch {batch}: {name}, ckpt, GB' for name in REGIMES.values()]
    rows = []
    for own in models:
        kept = own['activations']
        sizes = [state_bytes(name, own['parameters'], own['adapters']) for name in REGIMES]
        for batch in map(str, batches):
            sizes.append(kept['mixed'][batch]['off'])
            sizes += [kept[regime][batch]['on'] for regime in REGIMES]
        rows.append([own['name'], *(f'{size / GB:.1f}' for size in sizes)])
    return table(header, rows)


def fit_table(models: Sequence[dict[str, Any]]) -> str:
    """What fits where."""
    header = ['model', *(f'all weights, {REGIMES[regime]}' for regime in ('mixed', 'pure')), 'LoRA']
    return table(header, [[own['name'], *fits(own).values()] for own in models])
