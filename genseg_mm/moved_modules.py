"""Old module paths, which go on working: an import of one is served by the module that holds its contents now."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

# old path -> new path; a package that is gone is served by the package above it, which exports the same names
MOVED = {
    'genseg_mm.version': 'genseg_mm',
    'genseg_mm.evaluation.point_prompts.point_prompt_metric': 'genseg_mm.evaluation.point_prompt_metric',
    'genseg_mm.evaluation.point_prompts.point_prompt_results': 'genseg_mm.evaluation.point_prompt_scores',
    'genseg_mm.evaluation.point_prompts.point_prompt_ious': 'genseg_mm.evaluation.point_prompt_scores',
    'genseg_mm.evaluation.point_prompts.point_prompt_choices': 'genseg_mm.evaluation.point_prompt_scores',
    'genseg_mm.evaluation.point_prompts.point_prompt_samples': 'genseg_mm.evaluation.point_prompt_scores',
    'genseg_mm.evaluation.point_prompts': 'genseg_mm.evaluation',
    'genseg_mm.evaluation.edges.edge_metric': 'genseg_mm.evaluation.edge_metric',
    'genseg_mm.evaluation.edges.edge_scores': 'genseg_mm.evaluation.edge_scores',
    'genseg_mm.evaluation.edges.edge_matching': 'genseg_mm.evaluation.edge_matching',
    'genseg_mm.evaluation.edges.edge_thinning': 'genseg_mm.evaluation.edge_matching',
    'genseg_mm.evaluation.edges': 'genseg_mm.evaluation',
    'genseg_mm.evaluation.referring_items': 'genseg_mm.evaluation.referring_metric',
    'genseg_mm.evaluation.item_names': 'genseg_mm.evaluation.sample_results',
    'genseg_mm.whole_files': 'genseg_mm.files.whole_files',
    'genseg_mm.write_lock': 'genseg_mm.files.write_lock',
    'genseg_mm.image_files': 'genseg_mm.files.images',
    'genseg_mm.image_headers': 'genseg_mm.files.image_headers',
    'genseg_mm.mat_files': 'genseg_mm.files.arrays',
    'genseg_mm.pickle_bounds': 'genseg_mm.files.pickles',
    'genseg_mm.hub_files': 'genseg_mm.files.hub_files',
    'genseg_mm.leaderboard.text_files': 'genseg_mm.files',
    'genseg_mm.npz_files': 'genseg_mm.files.arrays',
    'genseg_mm.datasets.safe_pickle': 'genseg_mm.files.pickles',
    'genseg_mm.hooks.pictures': 'genseg_mm.pictures',
    'genseg_mm.hooks.stop_on_signal_hook': 'genseg_mm.hooks.training_hooks',
    'genseg_mm.hooks.missed_validation_hook': 'genseg_mm.hooks.training_hooks',
    'genseg_mm.hooks.finite_loss_hook': 'genseg_mm.hooks.training_hooks',
    'genseg_mm.hooks.iteration_seed_hook': 'genseg_mm.hooks.training_hooks',
    'genseg_mm.hooks.task_log_processor': 'genseg_mm.hooks.training_hooks',
    'genseg_mm.launch.user_errors': 'genseg_mm.launch.command_line',
    'genseg_mm.launch.switches': 'genseg_mm.launch.config',
    'genseg_mm.launch.option_checks': 'genseg_mm.launch.config_types',
    'genseg_mm.functional.pixel_terms': 'genseg_mm.functional.instance_coloring',
    'genseg_mm.functional.fused_inverse_distance': 'genseg_mm.functional.inverse_distance',
    'genseg_mm.functional.prompt_queries': 'genseg_mm.functional.point_prompting',
    'genseg_mm.functional.prompt_checks': 'genseg_mm.functional.point_prompting',
    'genseg_mm.functional.connected_components': 'genseg_mm.functional.color_grouping',
    'genseg_mm.models.color_scale': 'genseg_mm.functional.color_maps',
    'genseg_mm.functional.control_maps': 'genseg_mm.functional.color_maps',
    'genseg_mm.functional.edge_maps': 'genseg_mm.functional.color_maps',
    'genseg_mm.datasets.referring.leakage': 'genseg_mm.datasets.leakage',
    'genseg_mm.comparing.pairing': 'genseg_mm.comparing.comparison',
    'genseg_mm.evaluation.paired_bootstrap': 'genseg_mm.comparing.comparison',
    'genseg_mm.comparing.comparison_tables': 'genseg_mm.comparing.report',
    'genseg_mm.comparing.failure_gallery': 'genseg_mm.comparing.report',
    'genseg_mm.models.dit_families.channel_condition': 'genseg_mm.models.dit_families.channel_families',
    'genseg_mm.models.dit_families.sana': 'genseg_mm.models.dit_families.channel_families',
    'genseg_mm.models.dit_families.sd3': 'genseg_mm.models.dit_families.channel_families',
    'genseg_mm.models.dit_families.pixart': 'genseg_mm.models.dit_families.channel_families',
    'genseg_mm.models.dit_families.token_condition': 'genseg_mm.models.dit_families.token_families',
    'genseg_mm.models.dit_families.wan': 'genseg_mm.models.dit_families.token_families',
    'genseg_mm.models.dit_families.qwen_image': 'genseg_mm.models.dit_families.token_families',
    'genseg_mm.models.dit_families.flux': 'genseg_mm.models.dit_families.token_families',
    'genseg_mm.models.dit_families.z_image': 'genseg_mm.models.dit_families.token_families',
    'genseg_mm.models.dit_families.text_inputs': 'genseg_mm.models.dit_families.family',
    'genseg_mm.inference.jobs': 'genseg_mm.inference.images',
    'genseg_mm.inference.network_pipeline': 'genseg_mm.datasets.transforms.network_pipeline',
    'genseg_mm.inference.predictions': 'genseg_mm.inference.results',
    'genseg_mm.boundary_files': 'genseg_mm.files.arrays',
    'genseg_mm.models.network_size': 'genseg_mm.network_sizes',
    'genseg_mm.datasets.coco_annotations': 'genseg_mm.datasets.annotation_files',
    'genseg_mm.datasets.counted_warning': 'genseg_mm.datasets.annotation_files',
    'genseg_mm.datasets.instances.zero_shot.label_rules': 'genseg_mm.datasets.segmentations',
    'genseg_mm.datasets.counted_visits': 'genseg_mm.datasets.seeded_access',
    'genseg_mm.datasets.visit_sampler': 'genseg_mm.datasets.samplers',
    'genseg_mm.datasets.instances.instance_map_files': 'genseg_mm.datasets.instance_maps',
    'genseg_mm.datasets.instances.instance_map_dataset': 'genseg_mm.datasets.instance_maps',
    'genseg_mm.datasets.instances.hypersim': 'genseg_mm.datasets.hypersim',
    'genseg_mm.datasets.instances.hypersim_files': 'genseg_mm.datasets.hypersim',
    'genseg_mm.datasets.instances.virtual_kitti2': 'genseg_mm.datasets.virtual_kitti2',
    'genseg_mm.datasets.instances.clevrtex': 'genseg_mm.datasets.clevrtex',
    'genseg_mm.datasets.instances.coco_instances': 'genseg_mm.datasets.coco_instances',
    'genseg_mm.datasets.instances.class_subsets': 'genseg_mm.datasets.class_subsets',
    'genseg_mm.datasets.instances.zero_shot.dram': 'genseg_mm.datasets.zero_shot',
    'genseg_mm.datasets.instances.zero_shot.egohos': 'genseg_mm.datasets.zero_shot',
    'genseg_mm.datasets.instances.zero_shot.ishape': 'genseg_mm.datasets.zero_shot',
    'genseg_mm.datasets.instances.zero_shot.pidray': 'genseg_mm.datasets.zero_shot',
    'genseg_mm.datasets.edges.bsds500': 'genseg_mm.datasets.bsds500',
    'genseg_mm.datasets.edges.load_boundaries': 'genseg_mm.datasets.bsds500',
    'genseg_mm.datasets.referring.refcoco': 'genseg_mm.datasets.refcoco',
    'genseg_mm.datasets.referring.refer_files': 'genseg_mm.datasets.refcoco',
    'genseg_mm.datasets.referring.grefcoco': 'genseg_mm.datasets.grefcoco',
    'genseg_mm.datasets.referring.reason_seg': 'genseg_mm.datasets.reason_seg',
    'genseg_mm.datasets.referring.reason_seg_files': 'genseg_mm.datasets.reason_seg',
    'genseg_mm.datasets.captions.caption_dataset': 'genseg_mm.datasets.coco_captions',
    'genseg_mm.datasets.captions.coco_captions': 'genseg_mm.datasets.coco_captions',
    'genseg_mm.datasets.captions.image_text': 'genseg_mm.datasets.image_text',
    'genseg_mm.datasets.captions.tar_shards': 'genseg_mm.datasets.image_text',
    'genseg_mm.datasets.shapes.shapes_dataset': 'genseg_mm.datasets.shapes_dataset',
    'genseg_mm.datasets.shapes.shape_expressions': 'genseg_mm.datasets.shapes_dataset',
    'genseg_mm.datasets.shapes.shape_scenes': 'genseg_mm.datasets.shape_scenes',
    'genseg_mm.datasets.shapes.outlines': 'genseg_mm.datasets.shape_scenes',
    'genseg_mm.datasets.shapes.textured_scenes': 'genseg_mm.datasets.textured_scenes',
    'genseg_mm.datasets.encodings.cached_encodings': 'genseg_mm.datasets.cached_encodings',
    'genseg_mm.datasets.encodings.items_to_encode': 'genseg_mm.datasets.cached_encodings',
    'genseg_mm.datasets.encodings.encoding_cache': 'genseg_mm.datasets.encoding_cache',
    'genseg_mm.datasets.transforms.load_image': 'genseg_mm.datasets.transforms.images',
    'genseg_mm.datasets.transforms.antialiased_resize': 'genseg_mm.datasets.transforms.images',
    'genseg_mm.datasets.transforms.network_resize': 'genseg_mm.datasets.transforms.images',
    'genseg_mm.datasets.transforms.pack_inputs': 'genseg_mm.datasets.transforms.images',
    'genseg_mm.datasets.transforms.load_instance_map': 'genseg_mm.datasets.transforms.instances',
    'genseg_mm.datasets.transforms.keep_classes': 'genseg_mm.datasets.transforms.instances',
    'genseg_mm.datasets.transforms.random_instance_crop': 'genseg_mm.datasets.transforms.instances',
    'genseg_mm.datasets.transforms.random_scene_permute': 'genseg_mm.datasets.transforms.instances',
    'genseg_mm.datasets.transforms.load_referring_mask': 'genseg_mm.datasets.transforms.referring',
    'genseg_mm.datasets.transforms.mask_values': 'genseg_mm.datasets.transforms.referring',
    'genseg_mm.datasets.transforms.random_referring_flip': 'genseg_mm.datasets.transforms.referring',
    'genseg_mm.datasets.transforms.text_prompt': 'genseg_mm.datasets.transforms.referring',
    'genseg_mm.datasets.transforms.description_file': 'genseg_mm.datasets.transforms.referring',
    'genseg_mm.datasets.transforms.use_descriptions': 'genseg_mm.datasets.transforms.referring',
    'genseg_mm.datasets.transforms.point_prompt': 'genseg_mm.datasets.transforms.points',
    'genseg_mm.datasets.instances.zero_shot': 'genseg_mm.datasets',
    'genseg_mm.datasets.instances': 'genseg_mm.datasets',
    'genseg_mm.datasets.referring': 'genseg_mm.datasets',
    'genseg_mm.datasets.captions': 'genseg_mm.datasets',
    'genseg_mm.datasets.edges': 'genseg_mm.datasets',
    'genseg_mm.datasets.encodings': 'genseg_mm.datasets',
    'genseg_mm.datasets.shapes': 'genseg_mm.datasets',
    'genseg_mm.launch.expected_items': 'genseg_mm.datasets.published_counts',
    'genseg_mm.launch.network_size': 'genseg_mm.dataset_configs',
    'genseg_mm.launch.dataset_fingerprint': 'genseg_mm.benchmarking.provenance',
    'genseg_mm.benchmarking.dataset_facts': 'genseg_mm.benchmarking.provenance',
    'genseg_mm.benchmarking.effective_config': 'genseg_mm.benchmarking.jobs',
    'genseg_mm.benchmarking.model_list': 'genseg_mm.benchmarking.suite',
    'genseg_mm.benchmarking.predict_items': 'genseg_mm.benchmarking.examples',
    'genseg_mm.benchmarking.progress': 'genseg_mm.benchmarking.run_suite',
    'genseg_mm.benchmarking.runner': 'genseg_mm.benchmarking.loop',
    'genseg_mm.leaderboard.page': 'genseg_mm.leaderboard.html_page',
    'genseg_mm.leaderboard.record_schema': 'genseg_mm.leaderboard.record',
    'genseg_mm.leaderboard.table_spec': 'genseg_mm.leaderboard.tables',
    'genseg_mm.leaderboard.csv_table': 'genseg_mm.leaderboard.board',
    'genseg_mm.leaderboard.markdown_report': 'genseg_mm.leaderboard.markdown',
    'genseg_mm.models.mmseg_api': 'genseg_mm.models.base',
    'genseg_mm.models.seeded_noise': 'genseg_mm.models.base',
    'genseg_mm.models.semantic_maps': 'genseg_mm.models.base',
    'genseg_mm.models.colorers.patches': 'genseg_mm.models.base',
    'genseg_mm.models.picture_generation': 'genseg_mm.models.genmask',
    'genseg_mm.models.patch_codec': 'genseg_mm.models.latent_codec',
    'genseg_mm.models.automatic_instances': 'genseg_mm.models.map_prompting',
    'genseg_mm.models.losses': 'genseg_mm.models.coloring_head',
    'genseg_mm.models.presets': 'genseg_mm.models.gen2seg',
    'genseg_mm.models.released_weights': 'genseg_mm.models.gen2seg',
    'genseg_mm.models.prompt_encoders.prompt_embeddings': 'genseg_mm.models.prompt_encoders.prompt_encoder',
    'genseg_mm.models.prompt_encoders.qwen_vl_chat': 'genseg_mm.models.prompt_encoders.qwen_vl',
    'genseg_mm.models.prompt_encoders.qwen_vl_images': 'genseg_mm.models.prompt_encoders.qwen_vl',
    'genseg_mm.models.prompt_encoders.t5_prompt_encoder': 'genseg_mm.models.prompt_encoders.t5',
    'genseg_mm.models.prompt_encoders.qwen_vl_prompt_encoder': 'genseg_mm.models.prompt_encoders.qwen_vl',
    'genseg_mm.launch.evaluator_checks': 'genseg_mm.launch.runner',
    'genseg_mm.launch.seeded_dataloader': 'genseg_mm.launch.runner',
    'genseg_mm.launch.latent_data': 'genseg_mm.launch.dataset_parts',
    'genseg_mm.benchmarking.command_line': 'genseg_mm.benchmarking.run_suite',
}


class _Alias(Loader):
    def __init__(self, target: str) -> None:
        self.target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self.target)
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own_spec  # the import system has just put the alias's there


class MovedModules(MetaPathFinder):
    """Finds the modules of ``MOVED``, and what is imported through a package of it.

    Asked first: a package that is gone shares its folder with the one that serves it, so that Python's own finder
    would load files of that one a second time, under the old name.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition('.')
        new = MOVED.get(fullname) or (f'{MOVED[package]}.{name}' if package in MOVED else None)
        if new is None:
            return None
        warnings.warn(f'{fullname} is {new} now', DeprecationWarning, stacklevel=2)
        return spec_from_loader(fullname, _Alias(new))


def install() -> None:
    """Lets the import system know of the old paths, once."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
