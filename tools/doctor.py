"""Says what works on this machine and what to type for the rest: python tools/doctor.py [--json].

The exit code is 0 when the core works (the packages are there, a shipped model predicts), else 1.
"""

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

import genseg_mm
from genseg_mm.doctor import OK, Finding, examine, works
from genseg_mm.launch import ToolParser, run_tool


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', action='store_true', help='print everything as JSON')
    return parser.parse_args()


def line_of(own: Finding) -> str:
    """One line for people."""
    mark = {OK: ' '}.get(own.state, '!' if own.state == 'missing' else '-')
    said = f' {mark} {own.name:16} {own.found}'
    return f'{said}\n {"":18} -> {own.remedy}' if own.remedy and own.state != OK else said


def main() -> None:
    args = parse_args()
    findings, group = [], ''
    if not args.json:
        print(f'genseg_mm {genseg_mm.__version__} in {os.path.dirname(genseg_mm.__file__)}')
    for own in examine():
        findings.append(own)
        if args.json:
            continue
        if own.group != group:
            group = own.group
            print(f'\n{group}')
        print(line_of(own), flush=True)
    good = works(findings)
    if args.json:
        facts = dict(version=genseg_mm.__version__, works=good, findings=[asdict(own) for own in findings])
        print(json.dumps(facts, indent=1))
    else:
        print('\nthe core works' if good else '\nthe core does not work: see the lines with !')
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    run_tool(main)
