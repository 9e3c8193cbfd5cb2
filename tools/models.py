"""The models that go by a name, their weights and what they were measured at: python tools/models.py [WORD ...].

    python tools/models.py
    python tools/models.py genmask refcoco
    python tools/models.py --weights --json

Those that come with trained weights are first; the others are configs to train.
"""

import argparse
import ast
import json
from pathlib import Path

from genseg_mm.command import as_typed
from genseg_mm.launch import ToolParser, run_tool

PROMPTS = {'gen2seg': '--points 40,60', 'GenMask': "--texts 'WHAT'"}


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('words', nargs='*', metavar='WORD', help='only models whose name holds every one of these')
    parser.add_argument('--weights', action='store_true', help='only those that come with trained weights')
    parser.add_argument('--json', action='store_true', help='print everything as JSON')
    return parser.parse_args()


def what_it_is(config: Path) -> str:
    """The first line of a config's docstring."""
    doc = ast.get_docstring(ast.parse(config.read_text(encoding='utf-8'))) or ''
    return doc.partition('\n')[0]


def measured(entry: dict) -> list[str]:
    """A line for each dataset that a model was measured on, in percent."""
    return [
        f'{own["Dataset"]}: ' + ', '.join(f'{name} {value}' for name, value in own['Metrics'].items())
        for own in entry.get('Results') or ()
    ]


def main() -> None:
    args = parse_args()
    from genseg_mm.metafiles import metafile_models

    root, models = metafile_models()
    found = [
        own
        for name, own in sorted(models.items(), key=lambda pair: (not pair[1].get('Weights'), pair[0]))
        if all(word.lower() in name for word in args.words) and (own.get('Weights') or not args.weights)
    ]
    if not found:
        raise ValueError(
            f'no model {"with weights " * args.weights}has {" and ".join(map(repr, args.words))} in its name: there '
            f'are {len(models)} names'
        )
    described = [
        dict(
            name=own['Name'],
            method=own['In Collection'],
            what=what_it_is(Path(root, own['Config'])),
            config=str(Path(root, own['Config'])),
            weights=own.get('Weights'),
            measured=measured(own),
        )
        for own in found
    ]
    if args.json:
        print(json.dumps(described, indent=1))
        return
    trained = [own for own in described if own['weights']]
    if trained:
        print('with trained weights:')
    for own in trained:
        print(f'\n{own["name"]} ({own["method"]})\n  {own["what"]}')
        print(*(f'  {line}' for line in own['measured']), sep='\n')
        print(as_typed(f'  python tools/image_demo.py PICTURE {own["name"]} {PROMPTS[own["method"]]}'))
    others = [own for own in described if not own['weights']]
    if others:
        print('\n' * bool(trained) + 'to train (' + as_typed('python tools/train.py NAME') + '):\n')
        width = max(len(own['name']) for own in others)
        print(*(f'{own["name"]:{width}}  {own["what"]}' for own in others), sep='\n')


if __name__ == '__main__':
    run_tool(main)
