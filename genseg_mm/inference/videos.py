"""Videos frame by frame: queries, sentences or instances carried along, flicker measured, resumable.

A query is the colour at a point of one frame; it is looked for in the colour maps of those after it, where it follows
the colour of its object, which changes as this moves. A sentence is asked of every frame. Instances without a prompt
are linked from frame to frame by their overlap. Memory does not grow with the video: results of ``CHUNK`` frames are
written at a time, and a run that was ended goes on behind the last of these.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.logging import print_log
from rich.progress import track
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genseg_mm.files import read_json_dict, whole_file, write_text
from genseg_mm.files.videos import MAX_FRAMES, VideoHeader, read_frames, read_video_header, write_video
from genseg_mm.files.write_lock import WriteLock
from genseg_mm.functional.point_prompting import masks_from_queries, queries_from_points
from genseg_mm.functional.queried_colors import followed_queries
from genseg_mm.inference.images import Job, Source, run_in_order
from genseg_mm.inference.prompts import Prompts
from genseg_mm.inference.results import (
    arrays_of,
    bytes_of,
    color_array,
    decoded,
    draw_prediction,
    encoded,
    generated_sample,
    instances_of,
    plain_prompts,
)
from genseg_mm.inference.resuming import readable, run_key
from genseg_mm.inference.taken_names import check_names, identity
from genseg_mm.models.map_prompting import as_instances, flatness

CHUNK = 64  # frames that are written together
LINKED = 0.3  # least IoU of one instance in two frames


class VideoPrediction:
    """The prediction of one video.

    Args:
        inferencer: A ``GenSegInferencer``.
        path: Of the video.
        prompts: Points and boxes on the query frame, or texts; none for instances without a prompt.
        out_dir: Folder of ``preds/<name>.json`` and ``vis/<name>.webm``.
        query_frame: Number of the frame that points and boxes are given on; masks are empty before it.
        follow: Part of the way, in [0, 1], that a query moves to the mean colour of its mask after every frame. 1
            follows objects whose colour depends on where they are, 0 keeps the colour of the query frame.
        batch_size: Frames (of GenMask: times texts) that the network takes at once.
        automatic: As of a call of the inferencer.
        describe: Whether the description writer refines the texts, on the query frame.
        image_size: As of a call.
        prompting: As of a call.
        save_video: Whether to write ``vis/<name>.webm``.
        show_progress: Whether to show progress bars.
        max_frames: Longer videos are refused.
        force: Replace predictions of another video or picture of the same name, and what a run of it has left.
    """

    def __init__(
        self,
        inferencer: Any,
        path: str | Path,
        prompts: Prompts,
        out_dir: str | Path,
        query_frame: int = 0,
        follow: float = 1.0,
        batch_size: int = 1,
        automatic: bool | dict | None = None,
        describe: bool = False,
        image_size: Any = None,
        prompting: dict | None = None,
        save_video: bool = True,
        show_progress: bool = True,
        max_frames: int = MAX_FRAMES,
        force: bool = False,
    ) -> None:
        if not 0 <= follow <= 1:
            raise ValueError(f'follow: expected a part in [0, 1], but got {follow}')
        self.inferencer, self.model, self.path, self.prompts = inferencer, inferencer.model, Path(path), prompts
        self.query_frame, self.follow, self.batch_size = query_frame, follow, batch_size
        self.automatic, self.prompting = automatic, prompting or {}
        self.preprocessing = dict(image_size=image_size)
        self.save_video, self.show_progress, self.max_frames = save_video, show_progress, max_frames
        self.header: VideoHeader = read_video_header(path, max_frames)
        self.is_colored = not inferencer.takes_texts
        self.output = Path(out_dir, 'preds', f'{self.path.stem}.json')
        self.picture = Path(out_dir, 'vis', f'{self.path.stem}.webm')
        self.work = self.output.with_name(f'{self.path.stem}.tmp')
        self.identity = identity(path)
        if not force:
            check_names([(self.path.stem, str(path))], out_dir)
            self._check_left()
        self.chunk = -(-CHUNK // batch_size) * batch_size  # so that resuming cuts no batch
        # What goes from frame to frame
        self.queries = self.labels = self.before = self.last_map = self.last_frame = None
        self.ids: list[int] = []
        self.num_ids = 0
        self.texts = list(prompts.texts or ())
        if describe:
            self.texts = inferencer._describe(self._query_picture(), self.texts)

    def run(self) -> dict[str, Any]:
        """Predicts what is left of the video.

        Returns:
            ``num_frames`` and ``num_masks``; ``flicker``: ``mask_iou``, the mean IoU of a mask with itself one frame
            before, ``color_change`` and ``image_change``, the mean difference of colour maps and of the frames from one
            frame to the next, in [0, 255] (None where there is nothing to compare); ``outputs``, the files.

        Raises:
            ValueError: If the video is damaged, or another process predicts it into the same folder.
        """
        with WriteLock(self.work, 'wait for it, or choose another --out-dir'):
            try:
                done = self._predict()
            except BaseException:
                if not any(self.work.glob('*[0-9].json')):  # nothing to go on with
                    shutil.rmtree(self.work)
                raise
            summary = self._write(done)
            if self.save_video:
                write_video(self.picture, self._pictures(done), self.header.rate)
                summary['outputs'].append(self.picture)
        shutil.rmtree(self.work)
        return summary

    def _predict(self) -> int:
        """Writes the chunks that are missing; the number of all."""
        done = self._finished_chunks()
        if self.prompts.has_geometry and not done:
            self.prompts.check(f'video {self.path}, frame {self.query_frame}', self._query_picture().shape[:2])
        results = self._results(done * self.chunk)
        while (first := next(results, None)) is not None:
            self._write_chunk(done, chain([first], islice(results, self.chunk - 1)))
            done += 1
        return done

    def _finished_chunks(self) -> int:
        """The number of chunks that an earlier run has finished, whose state is taken over."""
        wanted, path = dict(run=self._key(), video=str(self.path), **self.identity), self.work / 'run.json'
        known = readable(path)
        if known is not None and known.get('run') != wanted['run']:
            print_log(f'{self.work} is of another prediction, which is started anew', 'current')
        done = 0
        if known is not None and known.get('run') == wanted['run']:
            while self._is_whole(done):
                done += 1
        for left in self.work.iterdir():
            if left.name not in ('.lock', 'run.json') and not (left.stem.isdecimal() and int(left.stem) < done):
                left.unlink()
        write_text(path, json.dumps(wanted))
        if done:
            print_log(f'{self.path}: goes on behind frame {done * self.chunk}', 'current')
            self._restore(done)
        return done

    def _check_left(self) -> None:
        """Refuses to throw away what a run of another video of this name was ended at."""
        known = readable(self.work / 'run.json') or {}
        place, crc = self.identity['place'], self.identity['crc']
        if known.get('place', place) != place and known['crc'] != crc:
            raise FileExistsError(
                f'{self.work} holds a part of the prediction of {known["video"]}, and not of {self.path}: end that '
                'first, choose another folder by --out-dir, or replace it by --force (in Python: out_dir=, force=True)'
            )

    def _key(self) -> str:
        """Stands for all that the results follow from."""
        # To its end: a download that was mended differs in its middle.
        video = self.path.stat().st_size, self.identity['crc']
        return run_key(
            self.model, video=video, prompts=plain_prompts(self.prompts), texts=self.texts, follow=self.follow,
            query_frame=self.query_frame, batch_size=self.batch_size, chunk=self.chunk, automatic=self.automatic,
            prompting=self.prompting, **self.preprocessing,
        )  # fmt: skip

    def _place(self, number: int, ending: str) -> Path:
        return self.work / f'{number:06d}{ending}'

    def _is_whole(self, number: int) -> bool:
        chunk = readable(self._place(number, '.json'))
        return (
            chunk is not None
            and len(chunk['frames']) == self.chunk
            and (not self.is_colored or self._place(number, '.mkv').is_file())
        )

    def _restore(self, done: int) -> None:
        chunk = read_json_dict(self._place(done - 1, '.json'))
        state, last = chunk['state'], chunk['frames'][-1]
        if state['queries'] is not None:
            self.queries, self.labels = torch.tensor(state['queries']), torch.tensor(state['labels'])
        self.ids, self.num_ids = last['ids'], state['num_ids']
        self.before = torch.from_numpy(decoded(last['masks'], *chunk['size']))
        if self.is_colored:
            self.last_map = next(self._maps(done - 1, chunk['size'], len(chunk['frames']) - 1))
        self.last_frame = next(read_frames(self.path, done * self.chunk - 1, self.max_frames))

    def _maps(self, number: int, size: Sequence[int], start: int = 0) -> Iterator[np.ndarray]:
        """Colour maps of a chunk, without what made their sides even."""
        for color_map in read_frames(self._place(number, '.mkv'), start):
            yield np.ascontiguousarray(color_map[: size[0], : size[1]])

    def _write_chunk(self, number: int, results: Iterator[tuple[dict, np.ndarray | None]]) -> None:
        frames = []

        def maps() -> Iterator[np.ndarray]:
            for record, color_map in results:
                frames.append(record)
                yield color_map

        if self.is_colored:
            write_video(self._place(number, '.mkv'), maps(), self.header.rate, lossless=True)
        else:
            frames = [record for record, _ in results]
        state = dict(queries=None, labels=None, num_ids=self.num_ids)
        if self.queries is not None:
            state.update(queries=self.queries.tolist(), labels=self.labels.tolist())
        chunk = dict(size=self.last_frame.shape[:2], state=state, frames=frames)
        write_text(self._place(number, '.json'), json.dumps(chunk))

    def _query_picture(self) -> np.ndarray:
        frame = next(read_frames(self.path, self.query_frame, self.max_frames), None)
        if frame is None:
            raise ValueError(f'video {self.path}: it has no frame {self.query_frame}, on which the prompts are given')
        return frame

    def _job(self, frame: np.ndarray, number: int) -> Job:
        name = f'video {self.path}, frame {number}'
        prompts = Prompts(texts=tuple(self.texts)) if self.inferencer.takes_texts else Prompts()
        return Job(Source(frame, str(self.path), name, f'{self.path.stem}_{number:06d}'), prompts, frame)

    def _results(self, start: int) -> Iterator[tuple[dict, np.ndarray | None]]:
        """Records and colour maps, BGR uint8, of the frames from number ``start`` on."""
        frames = read_frames(self.path, start, self.max_frames)
        jobs = (self._job(frame, number) for number, frame in enumerate(frames, start))
        ready = run_in_order(
            jobs, lambda job: self.inferencer.preprocess(job, **self.preprocessing), self._forward, self.batch_size
        )
        total = max(self.header.num_frames - start, 0) or None
        shown = track(ready, description='Frames', total=total, disable=not self.show_progress)
        for number, job in enumerate(shown, start):
            yield self._frame(job, number)

    def _forward(self, batch: list[tuple[Job, dict]]) -> None:
        if self.inferencer.takes_texts:
            self.inferencer.forward(batch)
            return
        for (job, _), sample in zip(batch, self.inferencer._predict([data for _, data in batch]), strict=True):
            job.outputs.append((sample.pred_color_map.data, sample.pred_network_map.data))

    def _frame(self, job: Job, number: int) -> tuple[dict, np.ndarray | None]:
        colors = color_map = None
        if self.is_colored:
            colors, network_map = job.outputs[0]
            found = self._instances(job, number, colors, network_map)
            color_map = np.ascontiguousarray(bytes_of(color_array(colors))[..., ::-1])
        else:
            found = generated_sample(job, self.model.mask_head.threshold).pred_instances
        masks = found.masks.cpu()
        ids, overlaps = self._linked(masks)
        arrays = arrays_of(found)
        record = dict(
            frame=number,
            time=round(number / self.header.rate, 4),
            ids=ids,
            masks=encoded(arrays['masks']),
            scores=arrays['scores'].tolist(),
            bboxes=arrays['bboxes'].tolist(),
            iou_before=overlaps,
            color_change=_change(color_map, self.last_map),
            image_change=_change(job.image, self.last_frame),
        )
        self.ids, self.before, self.last_map, self.last_frame = ids, masks, color_map, job.image
        return record, color_map

    def _instances(self, job: Job, number: int, colors: Tensor, network_map: Tensor) -> Any:
        if not self.prompts.has_geometry or number == self.query_frame:
            found = instances_of(
                self.model, colors, network_map, self.prompts, job.source.name, self.automatic, self.prompting
            )
            if not self.prompts.has_geometry:
                return found
            given = (self.prompts.points, self.prompts.point_labels, self.prompts.boxes)
            given = [None if value is None else torch.as_tensor(value).to(colors.device) for value in given]
            self.queries, self.labels = queries_from_points(colors, *given, **self._reading)
        elif number < self.query_frame:
            own = self.prompts.boxes if self.prompts.points is None else self.prompts.points
            return as_instances(torch.zeros(len(own), *colors.shape[1:], dtype=torch.bool), torch.zeros(len(own)))
        else:
            self.queries, self.labels = self.queries.to(colors.device), self.labels.to(colors.device)
            masks = masks_from_queries(
                colors, self.queries, self.labels, self.before.to(colors.device), **self._reading
            )
            found = as_instances(masks, flatness(colors, masks)).cpu()
        masks = found.masks.to(colors.device)
        self.queries = followed_queries(colors, masks, self.queries, self.labels, self.follow)
        return found

    @property
    def _reading(self) -> dict[str, Any]:
        """How masks are read off a colour map."""
        return {**self.model.prompting, **self.prompting}

    def _linked(self, masks: Tensor) -> tuple[list[int], list[float | None]]:
        """Ids of the masks, which are those of the frame before where they are the same, and IoU with these."""
        with_prompts = self.prompts.has_geometry or bool(self.texts)
        overlaps = None if self.before is None else _overlaps(masks, self.before)
        if with_prompts:
            own = [None] * len(masks) if overlaps is None else overlaps.diagonal().tolist()
            return list(range(len(masks))), [None if value is None or value != value else value for value in own]
        ids: list[int | None] = [None] * len(masks)
        values: list[float | None] = [None] * len(masks)
        if overlaps is not None and overlaps.size:
            for row, column in zip(*linear_sum_assignment(-np.nan_to_num(overlaps)), strict=True):
                if overlaps[row, column] >= LINKED:
                    ids[row], values[row] = self.ids[column], float(overlaps[row, column])
        for place, own in enumerate(ids):
            if own is None:
                ids[place], self.num_ids = self.num_ids, self.num_ids + 1
        return ids, values

    def _records(self, done: int) -> Iterator[dict]:
        for number in range(done):
            yield from read_json_dict(self._place(number, '.json'))['frames']

    def _write(self, done: int) -> dict[str, Any]:
        """The json of all frames, one line each, and what it sums up to."""
        sums = {name: [0.0, 0] for name in ('iou_before', 'color_change', 'image_change')}
        num_frames = num_masks = 0
        for record in self._records(done):
            num_frames, num_masks = num_frames + 1, num_masks + len(record['masks'])
            for name, total in sums.items():
                values = record[name] if isinstance(record[name], list) else [record[name]]
                known = [value for value in values if value is not None]
                total[0], total[1] = total[0] + sum(known), total[1] + len(known)
        means = {name: total / count if count else None for name, (total, count) in sums.items()}
        claimed = self.header.num_frames
        if num_frames < claimed:
            print_log(
                f'video {self.path}: {num_frames} of the {claimed} frames that it claims could be read', 'current'
            )
        height, width = self.last_frame.shape[:2]
        head = dict(
            video=str(self.path), **self.identity, height=height, width=width, rate=self.header.rate,
            num_frames=num_frames, claimed_frames=claimed, prompts=plain_prompts(self.prompts), texts=self.texts,
            query_frame=self.query_frame, follow=self.follow,
            flicker=dict(
                mask_iou=means['iou_before'], color_change=means['color_change'], image_change=means['image_change']
            ),
        )  # fmt: skip
        with whole_file(self.output) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "frames": [\n')
            for number, record in enumerate(self._records(done)):
                file.write(',\n' * bool(number) + json.dumps(record))
            file.write('\n]}\n')
        return dict(num_frames=num_frames, num_masks=num_masks, flicker=head['flicker'], outputs=[self.output])

    def _pictures(self, done: int) -> Iterator[np.ndarray]:
        """The frames with their masks, the colour map beside them; BGR."""
        size = self.last_frame.shape[:2]
        maps = chain.from_iterable(self._maps(number, size) for number in range(done))
        frames = read_frames(self.path, 0, self.max_frames)
        total = self.header.num_frames or None
        records = track(self._records(done), description='Video', total=total, disable=not self.show_progress)
        for record, frame in zip(records, frames, strict=True):
            prediction = dict(masks=decoded(record['masks'], *frame.shape[:2]))
            if self.is_colored:
                prediction['color_map'] = next(maps)[..., ::-1]
            given = self.prompts if record['frame'] == self.query_frame else Prompts()
            caption = f'{self.path.stem} · {record["time"]:.2f} s · masks: {len(record["masks"])}'
            picture = draw_prediction(frame, prediction, given, caption, self.texts, record['ids'])
            yield picture[..., ::-1]


def _change(now: np.ndarray | None, before: np.ndarray | None) -> float | None:
    """Mean difference of two pictures, in [0, 255]."""
    return None if now is None or before is None else float(cv2.absdiff(now, before).mean())


def _overlaps(masks: Tensor, before: Tensor) -> np.ndarray:
    """IoU of every mask with every one before, (K, L); NaN where both are empty."""
    first, second = (own.flatten(1).float() for own in (masks, before))
    both = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1)[None] - both
    return (both / union).numpy().astype(float)
