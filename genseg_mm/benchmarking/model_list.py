"""Which models a suite measures: its own, and those named on the command line."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import genseg_mm
from genseg_mm.benchmarking.suite import TASKS, Suite, check_folder_name, nearest
from genseg_mm.inference.build_model import is_config
from genseg_mm.registry import MODELS, class_name

KINDS = ('model', 'control')
_PACKAGE = Path(genseg_mm.__file__).resolve().parent


@dataclass(frozen=True)
class ModelEntry:
    """A model to measure.

    Attributes:
        name: Of its folder of results.
        title: For tables.
        config: Config file; or, where ``released``, folder or hub id.
        checkpoint: File of weights; None for a model without any.
        tasks: What it can do; None asks its type.
        kind: 'model' or 'control'.
        released: Whether ``config`` names released gen2seg weights.
        settings: Of the model over those of its config, such as ``dict(processing_size=0)``.
    """

    name: str
    title: str
    config: str
    checkpoint: str | None = None
    tasks: tuple[str, ...] | None = None
    kind: str = 'model'
    released: bool = False
    settings: dict[str, Any] | None = None


def choose_models(suite: Suite, texts: Sequence[str], tasks: Sequence[str] | None = None) -> list[ModelEntry]:
    """The models of a command line; all of the suite if it names none.

    Args:
        suite: The suite.
        texts: Each a name of the suite's ``models``, or as :func:`parse_model` takes.
        tasks: What the models that are not the suite's can do; by default their type says so.

    Raises:
        ValueError: If a text is none of these, two models have one name, or ``tasks`` concern none.
    """
    if not texts and not suite.models:
        raise ValueError(f'{suite.path} has no models of its own: name some, such as NAME=CONFIG:CHECKPOINT')
    entries = []
    for text in dict.fromkeys(texts or suite.models):
        if text in suite.models:
            entries.append(suite_model(suite, text))
            continue
        entry = parse_model(text, suite)
        if entry.name in suite.models:
            raise ValueError(f'{text}: the suite has a model {entry.name} of its own; choose another NAME=...')
        entries.append(replace(entry, tasks=tuple(tasks) if tasks else None))
    names = [entry.name for entry in entries]
    if tasks and set(names) <= set(suite.models):
        raise ValueError(
            f"--tasks is for models that are not the suite's, but {', '.join(names)} are: {suite.path} says "
            'what they can do, or their type'
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f'two models are called {twice[0]}; tell them apart with NAME=CONFIG:CHECKPOINT')
    return entries


def suite_model(suite: Suite, name: str) -> ModelEntry:
    """A model of the suite.

    Raises:
        ValueError: If its entry is wrong.
    """
    cfg: dict[str, Any] = dict(suite.models[name])
    where = f'{suite.path}: model {name}'
    known = ('title', 'config', 'checkpoint', 'tasks', 'kind', 'settings')
    unknown = sorted(set(cfg) - set(known))
    if unknown or not isinstance(cfg.get('config'), str):
        came = repr(unknown[0]) if unknown else f'config={cfg.get("config")!r}'
        raise ValueError(f'{where} must have a config and may have {known}, but got {came}')
    kind = cfg.get('kind', 'model')
    if kind not in KINDS:
        raise ValueError(f'{where}: kind must be one of {KINDS}, but got {kind!r}')
    tasks = cfg.get('tasks')
    wrong = [task for task in tasks or () if task not in TASKS]
    if wrong:
        raise ValueError(f'{where}: tasks must be of {TASKS}, but got {wrong[0]!r}')
    released = not is_config(cfg['config'])
    return ModelEntry(
        name=check_folder_name(name, where),
        title=cfg.get('title') or name,
        config=cfg['config'] if released else find_file(cfg['config']),
        checkpoint=cfg.get('checkpoint') and find_file(cfg['checkpoint']),
        tasks=tuple(tasks) if tasks else None,
        kind=kind,
        released=released,
        settings=cfg.get('settings'),
    )


def parse_model(text: str, suite: Suite | None = None) -> ModelEntry:
    """A model named on the command line.

    Args:
        text: ``NAME=CONFIG:CHECKPOINT``, ``CONFIG:CHECKPOINT``, ``CONFIG`` (a model without weights), or a released
            gen2seg folder or hub id, the latter two with or without ``NAME=``.
        suite: For the message.

    Raises:
        ValueError: If it is none of these.
    """
    name, rest = _split_name(text)
    config, _, checkpoint = rest.partition(':')
    if is_config(config):
        default = Path(config).stem
        if checkpoint:
            default += f'__{Path(checkpoint).stem}'
        found = find_file(config), find_file(checkpoint) if checkpoint else None
    elif not checkpoint and (os.path.isdir(os.path.expanduser(rest)) or rest.count('/') == 1):
        default, found = Path(rest).name, (rest, None)
    else:
        own = f'a model of the suite ({", ".join(suite.models)}), ' if suite and suite.models else ''
        raise ValueError(
            f'expected {own}NAME=CONFIG:CHECKPOINT, CONFIG:CHECKPOINT, CONFIG (without weights), or a '
            f'released gen2seg folder or hub id, but got {text!r}'
            f'{nearest(text, suite.models) if suite else ""}'
        )
    name = check_folder_name(name or default, f'the name of {text}')
    return ModelEntry(name, name, *found, released=not is_config(config))


def _split_name(text: str) -> tuple[str, str]:
    """The name before '=', and the rest; a '=' of the path itself, as in 'lr=0.1/config.py', parts nothing."""
    name, sign, rest = text.partition('=')
    if not sign:
        return '', text
    whole, after = (find_file(own.partition(':')[0]) for own in (text, rest))
    if os.path.exists(whole) or ('/' in name and not os.path.exists(after)):
        return '', text
    return name, rest


def find_file(path: str) -> str:
    """A file named in a suite or on the command line.

    It is relative to the working directory, else to the root of the repository, else to what the installed package
    ships. A path that is nowhere is given back as it is, so that the error of opening it names it.
    """
    given = Path(path).expanduser()
    if given.is_absolute() or '://' in path:
        return path if '://' in path else str(given)
    inside = given.relative_to('genseg_mm') if given.parts[:1] == ('genseg_mm',) else given
    places = [given, _PACKAGE.parent / given, _PACKAGE / '.mim' / given, _PACKAGE / inside]
    for place in places:
        if place.is_file():
            return str(place)
    return str(given)


def tasks_of(entry: ModelEntry, model: dict) -> tuple[str, ...]:
    """What a model can do: what the suite or --tasks says, else what its class, or that of its head, answers.

    A class answers by a class method ``benchmark_tasks(config)``, so that a subclass keeps the answer.

    Args:
        entry: The model.
        model: Its config.

    Raises:
        ValueError: If neither the entry nor the type says so.
    """
    if entry.tasks:
        return entry.tasks
    part = model.get('decode_head') or model  # of mmseg's models the head knows
    kind = part.get('type', '') if isinstance(part, dict) else ''
    ask = getattr(MODELS.get(kind) if isinstance(kind, str) else kind, 'benchmark_tasks', None)
    if ask is not None:
        return ask(part)
    raise ValueError(
        f'{entry.name}: what can a {class_name(model.get("type"))} do? name it with --tasks {" ".join(TASKS)} '
        "(some of these), or as tasks=(...) in the suite's models"
    )
