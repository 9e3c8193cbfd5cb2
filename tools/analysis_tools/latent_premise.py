"""GenMask's premise on any autoencoder (arXiv 2603.23906, the section on latents of masks).

Latents of masks are linearly separable, robust to noise and sharply distributed; those of pictures are not.

    python tools/analysis_tools/latent_premise.py configs/_base_/models/genmask_sana_tiny.py
    python tools/analysis_tools/latent_premise.py configs/genmask/refcoco.py --data configs/genmask/refcoco.py \\
        --image-size 512 512 --num-train 100 --num-test 50

Writes premise.md, premise.json and premise.png. Classifiers, components and thresholds are fitted on one split and
measured on another. What the paper does not state is ours: overall IoU, noise along the model's own path (the noisy
latents are decoded as they are), a linear map from each cell to its pixels as classifier.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.config_file import find_config
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.config import CfgOptions

SIGMAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="config with 'model.codec' or 'codec'")
    parser.add_argument('--out-dir', writes='folder', help='default: work_dirs/latent_premise/<config>')
    parser.add_argument('--data', help='config with dataloaders (default: procedural scenes)')
    parser.add_argument('--split', default='train', help='to fit on')
    parser.add_argument('--test-split', default='val', help='to measure on')
    parser.add_argument('--num-train', type=int, default=300)
    parser.add_argument('--num-test', type=int, default=200)
    parser.add_argument('--image-size', type=int, nargs=2, default=(64, 64), metavar=('H', 'W'))
    parser.add_argument('--max-cells', type=int, default=10_000, help='cells a classifier sees')
    parser.add_argument('--sigmas', type=float, nargs='+', default=SIGMAS, help='noise levels')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    parser.add_argument('--data-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    args = parser.parse_args()
    for name in ('num_train', 'num_test', 'max_cells'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1: {getattr(args, name)}')
    find_config(args.config)
    return args


if __name__ == '__main__':
    run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

import torch
import torch.nn.functional as F
from torch import Tensor

from genseg_mm.functional.flow_matching import noisy_latents
from genseg_mm.functional.latent_statistics import best_threshold, overall_iou, principal_components, sharpness
from genseg_mm.launch.dataset_parts import MaskPictures, read_codec, read_mask_pictures
from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.models.latent_probe import LatentProbe
from genseg_mm.models.mask_head import GenerativeMaskHead

SHOWN = (0.0, 0.3, 0.5, 0.7, 0.9)
KINDS = ('mask', 'image')
RIDGE = 1e-4


class Part:
    """Pictures, masks and their latents of one split."""

    def __init__(self, codec: LatentCodec, data: MaskPictures, device: str) -> None:
        self.data = data
        drawn = GenerativeMaskHead.masks_to_images(data.masks)
        self.latents = {
            'mask': codec.encode(drawn.to(device)).cpu(),
            'image': codec.encode(data.images.to(device)).cpu(),
        }

    def noisy(self, kind: str, sigma: float, seed: int) -> Tensor:
        """Latents on the path at one noise level; the same noise for every level."""
        latents = self.latents[kind]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
        return noisy_latents(latents, noise, torch.full((len(latents),), sigma))


def to_cells(latents: Tensor) -> Tensor:
    """(N, C, h, w) -> (N h w, C)."""
    return latents.movedim(1, -1).flatten(0, -2)


def held_out_iou(fit: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """IoU on the test part of scores above the threshold that is best on the fitted part; pairs of scores, masks."""
    threshold = best_threshold(*fit)
    return overall_iou(test[0] > threshold, test[1])


def linear_iou(latents: tuple[Tensor, Tensor], masks: tuple[Tensor, Tensor], cell_size: int, max_cells: int) -> float:
    """IoU of logistic regression from each latent cell to its pixels; pairs of fitted and test part."""
    probe = LatentProbe(latents[0].shape[1], cell_size)
    probe.fit(latents[0], masks[0], 'logistic', RIDGE, max_cells)
    scores = [probe(own)[:, 0] for own in latents]
    return held_out_iou((scores[0], masks[0]), (scores[1], masks[1]))


def component_iou(
    latents: tuple[Tensor, Tensor], masks: tuple[Tensor, Tensor], codec: LatentCodec | None = None
) -> float:
    """IoU of the first principal component alone.

    Its map is enlarged bilinearly; with a codec it is put back into latents and decoded. The better sign counts.
    """
    found = principal_components(to_cells(latents[0]))
    direction, mean = found.vectors[0].float(), found.mean.float()
    scores = []
    for own in latents:
        along = torch.einsum('c,nchw->nhw', direction, own - mean[:, None, None])[:, None]
        if codec is None:
            along = F.interpolate(along, masks[0].shape[-2:], mode='bilinear')
        else:
            along = mean[:, None, None] + along * direction[:, None, None]
            along = codec.decode(along.to(codec.latents_mean.device)).mean(1, keepdim=True).cpu()
        scores.append(along[:, 0])
    return max(held_out_iou((sign * scores[0], masks[0]), (sign * scores[1], masks[1])) for sign in (1, -1))


def separability(fit: Part, test: Part, codec: LatentCodec, max_cells: int) -> dict[str, float]:
    """IoU of linear readings of latents, and what calling every pixel an object would give."""
    masks = fit.data.masks, test.data.masks
    objects = fit.data.objects, test.data.objects
    of_masks, of_images = ((fit.latents[kind], test.latents[kind]) for kind in KINDS)
    decoded = codec.decode(test.latents['mask'].to(codec.latents_mean.device)).mean(1).cpu()
    return {
        'mask latents, autoencoder round trip': overall_iou(decoded > 0, masks[1]),
        'mask latents, logistic regression': linear_iou(of_masks, masks, codec.downsample, max_cells),
        'mask latents, first component, decoded': component_iou(of_masks, masks, codec),
        'mask latents, first component, threshold': component_iou(of_masks, masks),
        'image latents, logistic regression, that mask': linear_iou(of_images, masks, codec.downsample, max_cells),
        'image latents, logistic regression, all objects': linear_iou(of_images, objects, codec.downsample, max_cells),
        'image latents, first component, all objects': component_iou(of_images, objects),
        'every pixel, that mask': overall_iou(torch.ones_like(masks[1]), masks[1]),
        'every pixel, all objects': overall_iou(torch.ones_like(objects[1]), objects[1]),
    }


def robustness(fit: Part, test: Part, codec: LatentCodec, args: argparse.Namespace) -> list[dict]:
    """Decoding and separability of noisy latents, one row per noise level."""
    targets = {'mask': (fit.data.masks, test.data.masks), 'image': (fit.data.objects, test.data.objects)}
    rows = []
    for sigma in args.sigmas:
        noisy = {kind: test.noisy(kind, sigma, args.seed) for kind in KINDS}
        decoded = {kind: codec.decode(noisy[kind].to(args.device)).cpu() for kind in KINDS}
        error = (decoded['image'].clamp(-1, 1) - test.data.images).square().mean()
        row = dict(sigma=sigma)
        row['mask_iou'] = overall_iou(decoded['mask'].mean(1) > 0, test.data.masks)
        row['image_psnr'] = float(10 * torch.log10(4 / error))
        for kind in KINDS:
            pair = fit.noisy(kind, sigma, args.seed + 1), noisy[kind]
            row[f'{kind}_separability'] = linear_iou(pair, targets[kind], codec.downsample, args.max_cells)
        rows.append(row)
    return rows


def distribution(part: Part) -> dict[str, dict[str, Any]]:
    """Sharpness of the values of latents and shares of their principal components, for masks and images."""
    result = {}
    for kind in KINDS:
        cells = to_cells(part.latents[kind])
        found = principal_components(cells)
        shares = found.shares()
        projection = (cells - found.mean.float()) @ found.vectors[0].float()
        varying = [own for own in cells.T if own.std() > 1e-6]
        channels = [sharpness(own) for own in varying]
        result[kind] = dict(
            first_component=sharpness(projection)._asdict(),
            channel_mean={
                name: sum(getattr(own, name) for own in channels) / len(channels) for name in channels[0]._fields
            },
            constant_channels=cells.shape[1] - len(varying),
            explained=shares.tolist(),
            components_for_95_percent=int((shares.cumsum(0) < 0.95).sum()) + 1,
        )
    return result


def to_markdown(report: dict) -> str:
    """The report as tables."""
    lines = [f'# Premise on {report["codec"]}', '', *(f'- {line}' for line in report['data'])]
    lines += ['', '## Linear separability', '', '| from | oIoU |', '|---|---|']
    lines += [f'| {name} | {value:.3f} |' for name, value in report['separability'].items()]
    lines += ['', '## Robustness to noise', '']
    lines += ['| sigma | mask, decoded: oIoU | image, decoded: PSNR (dB) ', '|---|---|---|---|---|']
    lines[-2] += '| mask, linear: oIoU | objects from image, linear: oIoU |'
    for row in report['robustness']:
        lines.append(
            f'| {row["sigma"]:g} | {row["mask_iou"]:.3f} | {row["image_psnr"]:.1f} '
            f'| {row["mask_separability"]:.3f} | {row["image_separability"]:.3f} |'
        )
    lines += ['', '## Distribution of the latents', '', '| | masks | images |', '|---|---|---|']
    of = report['distribution']
    for source, label in (('first_component', 'first component'), ('channel_mean', 'channels')):
        names = ('excess kurtosis', "Sarle's bimodality", 'entropy at unit variance (nats)')
        for key, name in zip(('kurtosis', 'bimodality', 'entropy'), names, strict=True):
            values = [f'{of[kind][source][key]:.2f}' for kind in KINDS]
            lines.append(f'| {label}: {name} | {values[0]} | {values[1]} |')
    first = [f'{100 * of[kind]["explained"][0]:.1f} %' for kind in KINDS]
    lines.append(f'| variance explained by the first component | {first[0]} | {first[1]} |')
    counts = [of[kind]['components_for_95_percent'] for kind in KINDS]
    lines.append(f'| components for 95 % of the variance | {counts[0]} | {counts[1]} |')
    lines += ['', 'A Gaussian has excess kurtosis 0, bimodality 0.33 and entropy 1.42; two spikes have']
    lines += ['bimodality 1 and a far lower entropy.', '']
    return '\n'.join(lines)


def draw(report: dict, test: Part, codec: LatentCodec, seed: int, path: Path) -> None:
    """The figure: noise curves, distribution, spectrum, and one example over the noise levels."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(13, 9.5), layout='constrained')
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.05, 1))
    axes = top.subplots(1, 3)
    colors = dict(mask='tab:blue', image='tab:orange')
    rows = report['robustness']
    sigmas = [row['sigma'] for row in rows]
    for key, style, label in (
        ('mask_iou', '-o', 'mask, decoded'),
        ('mask_separability', '--', 'mask, linear'),
        ('image_separability', '--', 'objects from the image, linear'),
    ):
        kind = key.split('_')[0]
        values = [row[key] for row in rows]
        axes[0].plot(sigmas, values, style, color=colors[kind], label=label, markersize=4)
    axes[0].set(xlabel='sigma (1 is pure noise)', ylabel='overall IoU', ylim=(0, 1.02))
    axes[0].set_title('Robustness to noise')
    psnr = axes[0].twinx()
    psnr.plot(sigmas, [row['image_psnr'] for row in rows], ':s', color='tab:red', markersize=4)
    psnr.set_ylabel('PSNR of the decoded image (dB), dotted', color='tab:red')
    axes[0].legend(loc='lower left', fontsize=9)
    for kind in KINDS:
        cells = to_cells(test.latents[kind])
        found = principal_components(cells)
        along = (cells - found.mean.float()) @ found.vectors[0].float()
        along = along / along.std()
        options = dict(bins=80, range=(-4, 6), density=True, histtype='stepfilled', alpha=0.5)
        axes[1].hist(along.numpy(), color=colors[kind], label=f'{kind} latents', **options)
        shares = torch.tensor(report['distribution'][kind]['explained']).cumsum(0)
        axes[2].plot(range(1, len(shares) + 1), shares, '-o', color=colors[kind], label=kind)
    axes[1].set(xlabel='first component (standard deviations)', ylabel='density', yscale='log')
    axes[1].set_title('Distribution of the first component')
    axes[1].legend(fontsize=9)
    axes[2].set(xlabel='components', ylabel='explained share of the variance', ylim=(0, 1.02))
    axes[2].set_title('Spectrum')
    axes[2].legend(fontsize=9)
    grid = bottom.subplots(2, len(SHOWN))
    for column, sigma in enumerate(SHOWN):
        for row, kind in enumerate(KINDS):
            decoded = codec.decode(test.noisy(kind, sigma, seed)[:1].to(codec.latents_mean.device))
            picture = (decoded[0].clamp(-1, 1) + 1) / 2
            grid[row, column].imshow(picture.permute(1, 2, 0).cpu().numpy())
            grid[row, column].set(xticks=[], yticks=[])
        grid[0, column].set_title(f'sigma {sigma:g}')
    for row, kind in enumerate(KINDS):
        grid[row, 0].set_ylabel(f'{kind}, decoded')
    figure.savefig(path, dpi=110)
    plt.close(figure)


@torch.no_grad()
def main() -> None:
    args = parse_args()
    out_dir = Path(args.out_dir or Path('work_dirs/latent_premise', Path(args.config).stem))
    codec = read_codec(args.config, args.cfg_options, args.seed).to(args.device)
    cfg = read_dataset_config(args.data, args.data_options) if args.data else None
    parts, data = [], []
    for split, num in ((args.split, args.num_train), (args.test_split, args.num_test)):
        size = tuple(args.image_size)
        found = read_mask_pictures(cfg, split, num, size, args.seed)
        data.append(found.source)
        parts.append(Part(codec, found, args.device))
    fit, test = parts
    report = dict(
        codec=f'{type(codec.autoencoder).__name__} ({Path(args.config).name})',
        data=data,
        separability=separability(fit, test, codec, args.max_cells),
        robustness=robustness(fit, test, codec, args),
        distribution=distribution(test),
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    text = to_markdown(report)
    (out_dir / 'premise.md').write_text(text)
    (out_dir / 'premise.json').write_text(json.dumps(report, indent=1))
    draw(report, test, codec, args.seed, out_dir / 'premise.png')
    print(text)
    print(f'written to {out_dir}/premise.md, premise.json, premise.png')


if __name__ == '__main__':
    run_tool(main)
