"""Many visitors of a page at once, with the requests of browsers: python tests/app/many_visitors.py ADDRESS [VISITORS].

Each opens an example, waits for its colour map, clicks ten times with a pause between, asks for everything, and looks
whether what came is its own. Prints errors and latencies.
"""

import json
import random
import secrets
import sys
import threading
import time

import numpy as np


class Visitor(threading.Thread):
    """One of them; ``seconds`` by kind of request, ``errors`` in words."""

    def __init__(self, address: str, number: int, clicks: int = 10, pause: float = 1.0) -> None:
        super().__init__()
        self.address, self.number, self.clicks, self.pause = address.rstrip('/'), number, clicks, pause
        self.tab, self.seconds, self.errors = secrets.token_hex(6), {}, []

    def run(self) -> None:
        import httpx  # comes with Gradio

        try:
            with httpx.Client(timeout=120) as self.client:
                self.visit()
        except Exception as error:
            self.errors.append(f'{type(error).__name__}: {error}')

    def visit(self) -> None:
        """What one does."""
        self.client.get(self.address).raise_for_status()
        config = self.client.get(f'{self.address}/config').json()
        functions = {own['api_name']: own['id'] for own in config['dependencies']}
        values = {own['id']: own['props'].get('value') for own in config['components']}
        knobs = next(own['inputs'] for own in config['dependencies'] if own['id'] == functions['quick'])
        self.settings = [values[own] for own in knobs]
        random.seed(self.number)
        time.sleep(random.random() * self.pause)
        state = self.at_once('open', functions['opened'], dict(do='example', number=self.number % 4))
        self.check(state['kind'] == 'picture', 'no picture')
        size = state['picture']['width'], state['picture']['height']
        self.check(self.in_queue('map', functions['prepare'])['rows'][0]['map'] is not None, 'no colour map')
        for number in range(self.clicks):
            time.sleep(random.random() * 2 * self.pause)
            x, y = (random.uniform(0, side - 1) for side in size)
            state = self.at_once('click', functions['quick'], dict(do='click', x=x, y=y, tool='object'))
            mine = [own['points'][0][:2] for own in state['objects']]
            self.check(len(mine) == number + 1 and np.allclose(mine[-1], [x, y]), 'clicks of somebody else')
        self.check(self.in_queue('everything', functions['everything'])['kind'] == 'everything', 'not everything')

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.errors.append(what)

    def at_once(self, kind: str, function: int, event: dict) -> dict:
        start = time.perf_counter()
        body = dict(data=self.settings, fn_index=function, session_hash=self.tab, event_data=event)
        answer = self.client.post(f'{self.address}/gradio_api/run/predict', json=body)
        answer.raise_for_status()
        return self.took(kind, start, answer.json()['data'][0])

    def in_queue(self, kind: str, function: int) -> dict:
        start = time.perf_counter()
        body = dict(data=self.settings, fn_index=function, session_hash=self.tab, event_data=None, trigger_id=None)
        self.client.post(f'{self.address}/gradio_api/queue/join', json=body).raise_for_status()
        state = None
        with self.client.stream('GET', f'{self.address}/gradio_api/queue/data?session_hash={self.tab}') as lines:
            for line in lines.iter_lines():
                message = json.loads(line[6:]) if line.startswith('data: ') else {}
                if message.get('msg') == 'process_generating' and state is None:
                    state = message['output']['data'][0]  # the first is whole, the others are differences
                if message.get('msg') == 'process_completed':
                    self.check(message['success'], f'{kind} failed')
                    break
        return self.took(kind, start, state)

    def took(self, kind: str, start: float, state: dict) -> dict:
        self.seconds.setdefault(kind, []).append(time.perf_counter() - start)
        self.check(not state.get('error'), str(state.get('error')))
        return state


def main() -> None:
    """Runs them and prints a table."""
    address, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
    visitors = [Visitor(address, number) for number in range(count)]
    start = time.perf_counter()
    for own in visitors:
        own.start()
    for own in visitors:
        own.join()
    errors = [error for own in visitors for error in own.errors]
    print(f'{count} visitors at once, {time.perf_counter() - start:.0f} s, errors: {len(errors)} {errors[:3] or ""}')
    for kind in dict.fromkeys(kind for own in visitors for kind in own.seconds):
        times = 1000 * np.array([one for own in visitors for one in own.seconds.get(kind, ())])
        low, high = np.percentile(times, [50, 95])
        print(f'{kind:11} {len(times):4}  p50 {low:6.0f} ms  p95 {high:6.0f} ms  longest {times.max():6.0f} ms')
    sys.exit(bool(errors))


if __name__ == '__main__':
    main()
