#!/usr/bin/env bash
# Builds a virtual environment with the official PyTorch package, which the goldens are made with (`make goldens`).
#
#     convert/reference_env.sh DIR
#
# It lies apart from the project's own environment, since qwen-tts pins a transformers that mlx-lm is too new for. PYTHON
# names the Python to build it with (default: python3). On Linux the torch of PyPI brings CUDA, some 3 GB; the build for
# CPUs is enough: TORCH_INDEX=https://download.pytorch.org/whl/cpu takes it from PyTorch's own index.
set -euo pipefail
dir=${1:?usage: convert/reference_env.sh DIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

"${PYTHON:-python3}" -m venv "$dir"
install=("$dir/bin/python" -m pip install -q --disable-pip-version-check)
"${install[@]}" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
"${install[@]}" -r "$here/reference_requirements.txt"
# Without what it asks for besides: its web page (gradio), and torchaudio, in whose place torchaudio_stand_in.py stands.
"${install[@]}" --no-deps qwen-tts==0.1.1
(cd "$here" && "$dir/bin/python" -c 'import torchaudio_stand_in, qwen_tts') # fails here rather than in the middle of a suite
touch "$dir/installed"
