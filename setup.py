"""Package metadata, and the `configs` and `tools` that OpenMIM looks for in a package."""

import copy
import os
import platform
import re
import shutil
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r"^__version__ = '(.+)'$", (ROOT / 'bnet_mm/__init__.py').read_text(), re.M)[1]

# The extras are the set of versions that is tested together. Without an extra nothing but torch is
# asked for, so that `pip install bnet_mm` never moves the OpenMMLab versions of an environment that
# works already.
OPENMMLAB = [
    'mmengine==0.10.7',
    'mmcv==2.1.0',
    'torch==2.11.0',
    'torchvision==0.26.0',
    'safetensors',
    'setuptools<81',
]
EXTRAS = {
    'det': [*OPENMMLAB, 'mmdet==3.3.0'],
    'seg': [*OPENMMLAB, 'mmsegmentation==1.2.2', 'ftfy', 'regex'],
    'action': [*OPENMMLAB, 'mmaction2==1.2.0'],
    'cls': [*OPENMMLAB, 'mmpretrain==1.2.0', 'scipy'],
}
EXTRAS['analysis'] = ['captum', 'jinja2', 'matplotlib', 'scipy', 'tidecv']
EXTRAS['all'] = sorted(set().union(*EXTRAS.values()))
EXTRAS['onnx'] = ['onnx', 'onnxruntime', 'onnxscript']
EXTRAS['dev'] = [
    'hypothesis',
    'playwright',
    'pytest',
    'pytest-xdist',
    'ruff',
    'tensorboard',
    'timm',
    *EXTRAS['onnx'],
]


# The CPU kernels, once for each instruction set; bnet_mm/kernels/cpu.py loads the best that runs.
# No header of torch or Python is used, so one build fits every version of both. BNET_KERNELS=0
# leaves them out.
AVX2 = ['-mavx2', '-mfma', '-mf16c']
AVX512 = [*AVX2, *(f'-mavx512{part}' for part in ('f', 'bw', 'dq', 'vl', 'cd'))]
if os.environ.get('BNET_KERNELS') == '0':
    INSTRUCTION_SETS = {}
elif platform.machine().lower() in ('x86_64', 'amd64'):
    INSTRUCTION_SETS = {'_cpu_avx2': AVX2, '_cpu_avx512': AVX512}
else:
    INSTRUCTION_SETS = {'_cpu': []}
CSRC = 'bnet_mm/kernels/csrc'
KERNELS = [
    Extension(
        f'bnet_mm.kernels.{name}',
        sources=[f'{CSRC}/kernels.cpp'],
        depends=[f'{CSRC}/{header}.h' for header in ('blocks', 'layer', 'planes', 'vectors')],
        extra_compile_args=['-std=c++17', '-O3', '-g0', '-fopenmp', '-fvisibility=hidden', *flags],
        extra_link_args=['-fopenmp'],
        language='c++',
        optional=True,  # without a compiler the layer computes by torch's own operators
    )
    for name, flags in INSTRUCTION_SETS.items()
]


class BuildKernels(build_ext):
    """Compiles the libraries side by side; they are no Python modules and export no init."""

    def initialize_options(self):
        super().initialize_options()
        self.parallel = True

    def get_export_symbols(self, ext):
        return ext.export_symbols

    def build_extension(self, ext):
        # Of one source, so each in a folder of its own.
        own = copy.copy(self)
        own.build_temp = str(Path(self.build_temp) / ext.name)
        build_ext.build_extension(own, ext)


class BuildWithMim(build_py):
    """Puts configs, tools and the model index under `bnet_mm/.mim`, where `mim train` looks.

    A wheel gets copies; an editable install gets links in the checkout, so that both always show
    the same files.
    """

    MIM_ENTRIES = ('configs', 'tools', 'model-index.yml')

    def run(self):
        super().run()
        if self.editable_mode:
            mim = ROOT / 'bnet_mm/.mim'
            mim.mkdir(exist_ok=True)
            for entry in self.MIM_ENTRIES:
                link = mim / entry
                if not link.is_symlink():
                    link.symlink_to(Path('../..') / entry)
            return
        mim = Path(self.build_lib) / 'bnet_mm/.mim'
        for entry in self.MIM_ENTRIES:
            source, target = ROOT / entry, mim / entry
            if source.is_dir():
                shutil.copytree(
                    source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns('__pycache__')
                )
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


setup(
    name='bnet_mm',
    version=VERSION,
    description='BNET, batch normalization with an enhanced linear transformation, for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['bnet_mm', 'bnet_mm.*']),
    package_data={'bnet_mm.analysis': ['*.yml'], 'bnet_mm.reports.page': ['*.html']},
    ext_modules=KERNELS,
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.6'
    ],  # the first release whose torch.load refuses pickled code by default
    extras_require=EXTRAS,
    cmdclass={'build_ext': BuildKernels, 'build_py': BuildWithMim},
)
