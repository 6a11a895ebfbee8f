"""What is code in the set-up: the compiled kernels, and the `configs` and `tools` for OpenMIM."""

import copy
import os
import platform
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).resolve().parent

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
LINUX = platform.system() == 'Linux'
CSRC = 'bnet_mm/kernels/csrc'
HEADERS = [f'{CSRC}/{path.name}' for path in sorted((ROOT / CSRC).glob('*.h'))]
KERNELS = [
    Extension(
        f'bnet_mm.kernels.{name}',
        sources=[f'{CSRC}/kernels.cpp'],
        depends=HEADERS,
        extra_compile_args=[
            '-std=c++17',
            '-O3',
            '-g0',
            '-fopenmp',
            '-fvisibility=hidden',
            '-fno-sized-deallocation',
            '-fno-wrapv',  # setuptools passes Python's own -fwrapv, which makes loops slower
            *flags,
        ],
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

    def get_ext_filename(self, fullname):
        # No name of a Python in it: every version loads it.
        name = super().get_ext_filename(fullname)
        return name.partition('.')[0] + '.so' if LINUX else name

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


class Wheel(bdist_wheel):
    """Tags a wheel with kernels for every Python; `BNET_PLATFORM` names what it is fit for."""

    def get_tag(self):
        if not KERNELS:
            return 'py3', 'none', 'any'
        return 'py3', 'none', os.environ.get('BNET_PLATFORM') or super().get_tag()[2]


setup(
    ext_modules=KERNELS,
    cmdclass={'build_ext': BuildKernels, 'build_py': BuildWithMim, 'bdist_wheel': Wheel},
)
