#!/usr/bin/env bash
# Builds an environment of its own for the Python clients of `make test-clients`, as they bring about 1 GB of packages
# and bounds on ours: tests/server/clients/setup.sh [DIR] (default: .venv-clients). PYTHON: from which Python.
set -euo pipefail
folder=${1:-.venv-clients}
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check livekit-plugins-openai "pipecat-ai[openai]" litellm
