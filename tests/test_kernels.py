"""The fused kernels compute what their plain forms do: their bodies, compiled with g++, beside the plain operations."""

import re
import shutil

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts.networks import kernel_check, kernels
from mlx_qwen3tts.networks.kernel_source import FIRST_LINES, HEADERS, KERNELS
from tests import cpp_kernels

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="kernels are compiled with g++ where there is no GPU")


@pytest.fixture(params=[False, True], ids=["forwards", "backwards"])
def on_cpp(request, monkeypatch):
    """Kernels run by g++, the threads of a group in this order."""
    monkeypatch.setattr(kernels, "launch", lambda *a: cpp_kernels.launch(*a, backwards=request.param))


@pytest.mark.parametrize("name", kernels.NAMES)
def test_a_kernel_computes_what_its_plain_form_does(on_cpp, name):
    assert kernel_check.check(name) is None
