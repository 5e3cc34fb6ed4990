"""What several benchmarks ask alike: the processor's name, and what a frame reads of the weights."""

import platform
import subprocess
import sys
from pathlib import Path


def processor():
    """The processor's name where the system tells it, else the kind of machine."""
    if sys.platform == "darwin":
        return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def frame_bytes(sizes):
    """Bytes of weights that one frame reads, by what reads them. sizes: bytes by published tensor name.

    The talker's layers, final norm and head once; the predictor's layers, norm and input projection in each of its 15
    steps; each of its 15 heads once. Rows of embeddings and the KV cache are left out, less than a hundredth.
    """

    def total(*starts):
        return sum(size for name, size in sizes.items() if name.startswith(starts))

    predictor = "talker.code_predictor."
    heads = f"{predictor}lm_head."
    steps = len({name.removeprefix(heads).partition(".")[0] for name in sizes if name.startswith(heads)})
    every_step = (f"{predictor}model.layers.", f"{predictor}model.norm.", f"{predictor}small_to_mtp_projection.")
    parts = {
        "talker": total("talker.model.layers.", "talker.model.norm.", "talker.codec_head."),
        "predictor": steps * total(*every_step),
        "predictor_heads": total(heads),
    }
    return {**parts, "frame": sum(parts.values())}
