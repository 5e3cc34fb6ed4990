# Sets up MLX's CUDA backend where there is no network, for benchmarks.gpu. To be sourced by bash:
#
#     . benchmarks/gpu_setup.sh ENVIRONMENT FOLDER...
#     $GPU_PYTHON -m benchmarks.gpu --output report
#
# Makes the virtual environment ENVIRONMENT, which also sees the packages of the python3 on the path (PyTorch with its
# nvidia-* packages), and installs the wheels that lie in the folders into it, so that they come first. A wheel may lie
# in parts, NAME.whl.part00, NAME.whl.part01, ... as `split -b 46M -d NAME.whl NAME.whl.part` makes them, in several
# folders. For Python 3.12 on x86-64 the wheels are: mlx and mlx-cuda-13, mlx-lm, soundfile with cffi and pycparser, soxr;
# librosa with audioread, decorator, msgpack, platformdirs and pooch; mlx-audio with miniaudio and sounddevice.
#
# Exports GPU_PYTHON; LD_LIBRARY_PATH with the folders of CUDA's libraries; CUDA_HOME, where MLX finds the headers for the
# kernels that it compiles at run time (those of CUDA's C++ library come with mlx-cuda-13). An environment that is there
# already is used as it is. Returns 1, with what is missing, where `import mlx.core` fails.
#
# For the section `others`, the official package goes into an environment of its own, as it pins an older transformers:
#
#     gpu_environment OFFICIAL FOLDER... && $GPU_PYTHON -m benchmarks.gpu --official-python OFFICIAL/bin/python ...
#
# Its wheels: qwen-tts, transformers 4.57.3, tokenizers 0.22, huggingface-hub 0.36, sox, and soundfile, soxr and librosa
# with what they need, as above.

_gpu_say() { echo "gpu_setup: $*" >&2; }

# The wheels of all folders, joined where they are in parts, in $1.
_gpu_collect() {
    local into=$1 folder first name
    shift
    mkdir -p "$into"
    for folder in "$@"; do
        find "$folder" -maxdepth 1 -name '*.whl' -exec cp {} "$into" \;
    done
    find "$@" -maxdepth 1 -name '*.whl.part00' | while read -r first; do
        name=$(basename "${first%.part00}")
        # Sorted by the part's number, whatever folder it lies in.
        find "$@" -maxdepth 1 -name "$name.part[0-9][0-9]" | sed 's|.*\.\(part[0-9][0-9]\)$|\1 &|' | sort -u -k1,1 |
            cut -d' ' -f2- | xargs cat >"$into/$name"
        python3 -m zipfile -t "$into/$name" >/dev/null || _gpu_say "$name: a part is missing or damaged"
    done
}

# Makes the environment $1 from the wheels in the other folders, on top of the packages of python3.
gpu_environment() {
    local environment=$1 wheels site outer
    shift
    wheels=$(mktemp -d)
    _gpu_collect "$wheels" "$@"
    python3 -m venv --without-pip "$environment" || return 1
    site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    outer=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # A .pth file's folders come after the environment's own.
    echo "$outer" >"$site/outer.pth"
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl ||
        return 1
    # libmlx.so looks for CUDA's libraries beside itself.
    [ -d "$outer/nvidia" ] && [ ! -e "$site/nvidia" ] && ln -s "$outer/nvidia" "$site/nvidia"
    rm -rf "$wheels"
}

# The first folder that has the headers of CUDA's runtime, those of its compiler (crt) if possible.
_gpu_headers() {
    local wanted folder
    for wanted in crt/host_defines.h cuda_fp16.h; do
        for folder in "$CUDA_HOME" "$CUDA_PATH" /usr/local/cuda "$@" \
            "$(dirname "$(dirname "$(readlink -f "$(command -v nvcc || echo /none/none/none)")")")"; do
            [ -n "$folder" ] && [ -f "$folder/include/cuda_fp16.h" ] && [ -f "$folder/include/$wanted" ] &&
                echo "$folder" && return
        done
    done
}

gpu_setup() {
    local environment=$1 outer libraries home
    shift
    [ -x "$environment/bin/python" ] || gpu_environment "$environment" "$@" || return 1
    outer=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    libraries=$(find "$outer/nvidia" -maxdepth 2 -name lib -type d 2>/dev/null | paste -sd: -)
    export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    home=$(_gpu_headers "$outer/nvidia/cu13" "$outer/nvidia/cuda_runtime")
    [ -n "$home" ] && export CUDA_HOME="$home"
    [ -f "$CUDA_HOME/include/cuda_fp16.h" ] || _gpu_say "no CUDA headers found: kernels will not compile at run time"
    [ -f "$CUDA_HOME/include/crt/host_defines.h" ] || _gpu_say "no crt/host_defines.h in $CUDA_HOME/include"
    export GPU_PYTHON="$environment/bin/python"
    _gpu_say "python $GPU_PYTHON, CUDA_HOME ${CUDA_HOME:-not set}, LD_LIBRARY_PATH $LD_LIBRARY_PATH"
    if ! "$GPU_PYTHON" -c 'import mlx.core as mx; print("gpu_setup: MLX", mx.__version__, mx.default_device(), mx.cuda.is_available())'; then
        _gpu_say "MLX does not load; libraries it does not find:"
        ldd "$("$GPU_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mlx/lib/libmlx.so" 2>&1 |
            grep -E 'not found|version' >&2
        return 1
    fi
}

gpu_setup "$@"
