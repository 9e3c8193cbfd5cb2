"""The page's form, in Gradio: a stage of our own (stage.html, .js) beside fields, buttons and sliders of Gradio's."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genseg_mm.app import limits
from genseg_mm.app.actions import Actions
from genseg_mm.app.downloads import overlay
from genseg_mm.app.examples import examples, suited
from genseg_mm.app.guard import visitor_of
from genseg_mm.app.served_models import ServedModel
from genseg_mm.app.steps import Settings
from genseg_mm.app.view import jpeg
from genseg_mm.inference.build_model import with_weights

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when Gradio is imported
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'
try:
    import gradio as gr
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the web page needs Gradio: pip install 'genseg_mm[app]'", name='gradio') from error

_FOLDER = Path(__file__).parent
_MASTHEAD = (
    '<div id="masthead"><h1>genseg</h1><p>Click on a thing, say what you mean, or have a picture made.</p></div>'
)

_CLICKS = """<p class="mouse">Every click is an object of its own. <b>Shift</b> and click takes away from it,
<b>Ctrl</b> and click adds; drag for a box. Keys: 1 to 4 choose the tool, Tab and arrows move a cross, Enter clicks,
U undoes.</p>
<p class="touch">Every tap is an object of its own. Choose <b>Add</b> or <b>Remove</b> to mend it, <b>Box</b> to draw
one around an object.</p>"""

_FOOT = """<p id="foot">The models that come along are tiny and know drawn scenes: of photographs they make little. For
those give released weights, such as <code>genseg app reachomk/gen2seg-sd</code>.</p>"""


def css() -> str:
    """Of the whole page."""
    return (_FOLDER / 'page.css').read_text(encoding='utf-8')


def theme() -> gr.themes.Base:
    """Gradio's plain theme with the fonts of the visitor's machine: nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue='indigo',
        neutral_hue='slate',
        radius_size='lg',
        font=['system-ui', 'sans-serif'],
        font_mono=['ui-monospace', 'monospace'],
    )


def visitor(request: gr.Request) -> tuple[str, str]:
    """The key of a visitor: the secret cookie of the browser, and the number of the tab, which alone is no secret."""
    headers = getattr(request, 'headers', None) or {}
    return visitor_of(headers.get('cookie', '')) or '', str(getattr(request, 'session_hash', '') or '')


class Handlers:
    """What Gradio calls, with the values of all of ``_knobs`` at the end."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self.actions = Actions(models)
        self.colorers = [name for name, model in models.items() if not model.takes_texts]
        self.readers = [name for name, model in models.items() if model.takes_texts]

    def fitting(self, world: str) -> list[str | None]:
        """A colorer and a reader that know pictures of a world."""
        return [suited(names, world) for names in (self.colorers, self.readers)]

    def quick(self, event: gr.EventData, request: gr.Request, *given: Any) -> dict:
        return self.actions.quick(visitor(request), event._data, settings_of(*given))

    def opened(self, event: gr.EventData, request: gr.Request, *given: Any) -> tuple:
        """Opens a picture; an example has models and a sentence that suit it."""
        state = self.quick(event, request, *given)
        if 'example' not in state:
            return state, gr.skip(), gr.skip(), gr.skip()
        example = examples()[state['example']]
        words = gr.update(placeholder=f'such as: {example.text}') if example.text else gr.skip()
        return state, *(gr.update(value=[own]) if own else gr.skip() for own in self.fitting(example.world)), words

    def prepare(self, request: gr.Request, *given: Any) -> Iterator[dict]:
        yield from self.actions.prepare(visitor(request), settings_of(*given))

    def words(self, text: str, request: gr.Request, *given: Any) -> Iterator[dict]:
        yield from self.actions.words(visitor(request), text, settings_of(*given))

    def everything(self, request: gr.Request, *given: Any) -> Iterator[dict]:
        yield from self.actions.everything(visitor(request), settings_of(*given))

    def draw(
        self, text: str, count: Any, seed: Any, steps: Any, guidance: Any, request: gr.Request, *given: Any
    ) -> Iterator[dict]:
        asked = text, count, seed, steps, guidance
        yield from self.actions.draw(visitor(request), *asked, settings_of(*given))

    def tune(self, request: gr.Request, *given: Any) -> dict:
        return self.actions.quick(visitor(request), dict(do='tune'), settings_of(*given))

    def stop(self, request: gr.Request, *given: Any) -> dict:
        return self.actions.stop(visitor(request), settings_of(*given))

    def leave(self, request: gr.Request) -> None:
        self.actions.sessions.forget(visitor(request))


def settings_of(radius: Any, threshold: Any, size: Any, connected: Any, colorers: Any, readers: Any) -> Settings:
    """Of the values of ``_knobs``."""
    numbers = float(radius or 0), float(threshold or 0), int(size or 0)
    return Settings(*numbers, bool(connected), tuple(colorers or ()), tuple(readers or ()))


def first_models(models: Mapping[str, ServedModel]) -> list[str]:
    """Those that are chosen when a visitor comes."""
    return [name for name in Handlers(models).fitting(examples()[0].world) if name]


def build_page(models: Mapping[str, ServedModel]) -> gr.Blocks:
    """The page of some models, not launched."""
    own = Handlers(models)
    chosen = [[name] if name else [] for name in own.fitting(examples()[0].world)]
    with gr.Blocks(title='genseg', analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_MASTHEAD)
        with gr.Row(elem_id='work', equal_height=False):
            with gr.Column(scale=3, min_width=320):
                stage = gr.HTML(
                    value=None,
                    html_template=(_FOLDER / 'stage.html').read_text(encoding='utf-8'),
                    js_on_load=(_FOLDER / 'stage.js').read_text(encoding='utf-8'),
                    examples=[dict(title=one.title, src=jpeg(overlay(one.picture(), None, 176))) for one in examples()],
                    max_bytes=limits.MAX_BYTES,
                    elem_id='stage',
                    apply_default_css=False,
                )
            with gr.Column(scale=1, min_width=300):
                fields = _fields(own.colorers, own.readers)
                knobs = _knobs(own.colorers, own.readers, *chosen)
        if set(models) <= set(with_weights()):
            gr.HTML(_FOOT)
        _connect(page, own, stage, fields, knobs)
    page.queue(max_size=limits.MAX_WAITING, default_concurrency_limit=1, api_open=False)
    return page


def _connect(page: gr.Blocks, own: Handlers, stage: gr.HTML, fields: dict, knobs: dict) -> None:
    """Says what calls what: clicks at once, models one visitor after the other in a queue."""
    inputs = [*knobs.values()]
    now = dict(queue=False, show_progress='hidden', trigger_mode='multiple', api_visibility='private')
    slow = dict(
        concurrency_limit=1, concurrency_id='models', show_progress='minimal', trigger_mode='once',
        api_visibility='private',
    )  # fmt: skip
    stage.quick(own.quick, inputs, stage, **now)
    opened = stage.chain(own.opened, inputs, [stage, knobs['colorers'], knobs['readers'], fields['text']], **now)
    work = [opened.then(own.prepare, inputs, stage, **slow)]
    work += [knobs[key].input(own.prepare, inputs, stage, **slow) for key in ('colorers', 'readers')]
    said = fields['text'].submit, fields['say'].click
    work += [trigger(own.words, [fields['text'], *inputs], stage, **slow) for trigger in said]
    work.append(fields['everything'].click(own.everything, inputs, stage, **slow))
    wanted = [fields[key] for key in ('idea', 'count', 'seed', 'steps', 'guidance')]
    imagined = fields['idea'].submit, fields['draw'].click
    work += [trigger(own.draw, [*wanted, *inputs], stage, **slow) for trigger in imagined]
    for key in ('radius', 'threshold', 'size', 'connected'):  # of a slider that is moved the last place counts
        knobs[key].input(own.tune, inputs, stage, **{**now, 'trigger_mode': 'always_last'})
    fields['stop'].click(own.stop, inputs, stage, cancels=work, **now)
    page.unload(own.leave)


def _fields(colorers: list[str], readers: list[str]) -> dict[str, gr.blocks.Block]:
    """What is asked for in words and buttons."""
    own: dict[str, gr.blocks.Block] = {}
    example = next((one.text for one in examples() if one.text), '')
    with gr.Tabs():
        with gr.Tab('Click'):
            gr.HTML(_CLICKS)
            own['everything'] = gr.Button('Find everything', interactive=bool(colorers))
        with gr.Tab('Say'):
            own['text'] = gr.Textbox(
                label='What do you mean?',
                placeholder=f'such as: {example}',
                info='Several sentences: put ; between them.',
                max_length=limits.MAX_TEXT * limits.MAX_TEXTS,
                interactive=bool(readers),
            )
            own['say'] = gr.Button('Find it', variant='primary', interactive=bool(readers))
        with gr.Tab('Imagine'):
            own['idea'] = gr.Textbox(
                label='What should be in the picture?',
                placeholder='such as: two apples and a pear on grass',
                max_length=limits.MAX_TEXT,
                interactive=bool(readers),
            )
            own['count'] = gr.Slider(1, limits.MAX_DRAWN, 4, step=1, label='Pictures')
            with gr.Accordion('Noise and guidance', open=False):
                own['seed'] = gr.Number(
                    0, label='Seed', info='Of the noise that a picture begins as.', precision=0, minimum=0
                )
                own['steps'] = gr.Slider(1, 60, 28, step=1, label='Steps', info='More are finer, and slower.')
                own['guidance'] = gr.Slider(
                    0, 8, 0, step=0.5, label='Guidance', info="How hard the words pull; 0: the model's own."
                )
            own['draw'] = gr.Button('Make pictures', variant='primary', interactive=bool(readers))
    own['stop'] = gr.Button('Stop', size='sm', elem_id='stop')
    return own


def _knobs(colorers: list[str], readers: list[str], first: list[str], second: list[str]) -> dict[str, gr.blocks.Block]:
    """Sliders and the choice of models, in the order of ``Settings``."""
    own: dict[str, gr.blocks.Block] = {}
    with gr.Accordion('Fine-tune', open=False):
        own['radius'] = gr.Slider(
            0, 300, 0, step=1, label='Radius of colours',
            info="How far from the clicked colour of the map a pixel may be: more takes more. 0: the model's own.",
        )  # fmt: skip
        own['threshold'] = gr.Slider(
            0, 0.95, 0, step=0.05, label='Threshold of words',
            info="How bright the generated mask picture has to be: more takes less. 0: the model's own.",
        )  # fmt: skip
        own['size'] = gr.Slider(
            0, 512, 0, step=16, label='Size that the network sees',
            info="Longer side in pixels: more shows small things, far from the training's it gets worse. 0: its own.",
        )  # fmt: skip
        own['connected'] = gr.Checkbox(
            True, label='One piece', info='Keep only the part of a mask that the click is on.'
        )
    with gr.Accordion('Models', open=False):
        own['colorers'] = gr.CheckboxGroup(
            colorers, value=first, label='For clicks', info='Several are shown below each other, with the same clicks.'
        )
        own['readers'] = gr.CheckboxGroup(
            readers, value=second, label='For words', info='The first one makes pictures.'
        )
    return own
