"""``genseg completion``: bash completes commands, options, choices and names of configs by what it prints."""

import subprocess
import sys
from pathlib import Path

import pytest

from genseg_mm.command import COMMANDS

ROOT = Path(__file__).parents[2]
TRY = """
. "$1"
function=$(complete -p genseg | sed 's/.*-F \\([^ ]*\\).*/\\1/')
while read -ra words; do
    COMP_WORDS=("${words[@]//EMPTY/}") COMP_CWORD=$((${#words[@]} - 1)) COMPREPLY=()
    "$function" genseg "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
done
"""
CASES = {
    'genseg tr': 'train',
    'genseg EMPTY': {own.name.partition(' ')[0] for own in COMMANDS},
    'genseg prepare EMPTY': {own.name.partition(' ')[2] for own in COMMANDS if ' ' in own.name},
    'genseg train --res': '--resume',
    'genseg train x.py --launcher EMPTY': {'none', 'pytorch', 'slurm', 'mpi'},
    'genseg train gen2seg_unet_shapes_t': 'gen2seg_unet_shapes_tiny',
    'genseg predict photo.jpg gen2seg_unet_objects_l': 'gen2seg_unet_objects_long_tiny',
    'genseg prepare hypersim --wor': '--workers',
}


def test_bash_completes_the_words_of_the_command(tmp_path, run_tool):
    pytest.importorskip('shtab', reason="needs shtab: pip install 'genseg_mm[completion]'")
    code, printed, errors = run_tool('completion.py', 'bash')
    assert code == 0, errors
    (tmp_path / 'genseg.bash').write_text(printed)
    words = ['/bin/bash', '-c', TRY, 'bash', str(tmp_path / 'genseg.bash')]
    done = subprocess.run(words, input='\n'.join(CASES) + '\n', capture_output=True, text=True, cwd=tmp_path)
    answers = done.stdout.splitlines()
    assert len(answers) == len(CASES), done.stderr
    for (typed, expected), answer in zip(CASES.items(), answers, strict=True):
        wanted = expected if isinstance(expected, set) else {expected}
        assert wanted <= set(answer.split()) and (isinstance(expected, set) or answer == expected), typed


def test_without_shtab_it_says_what_to_type():
    block = "import sys; sys.modules['shtab'] = None; from genseg_mm.command import main; main(['completion', 'zsh'])"
    done = subprocess.run([sys.executable, '-c', block], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (
        "error: the package shtab is not installed, which this needs: pip install 'genseg_mm[completion]'\n"
    )
