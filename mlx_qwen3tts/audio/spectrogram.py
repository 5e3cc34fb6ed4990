"""Spectrograms one above the other with F0 drawn in, as a picture (PNG): to see what a change of voice did."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import MissingExtra, install_hint
from ..files.output import whole_file

HIGHEST = 4000  # Hz shown
WINDOW, HOP = 1024, 128  # samples at 24 kHz
DEPTH = 70  # dB below the loudest


def draw_spectrograms(
    path: str | Path, sounds: Mapping[str, np.ndarray], tracks: Mapping[str, np.ndarray], rate: int = 24000
) -> None:
    """Write a PNG file. sounds: {title: samples [n] at `rate`}, all on one axis of time; tracks: {title: what
    `measures.f0_track` gives of them}. Raises MissingExtra without matplotlib (the extra `voices`).
    """
    try:
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtra(f"a picture of sounds needs matplotlib: {install_hint('voices')}") from None
    longest = max(len(samples) for samples in sounds.values()) / rate
    with matplotlib.style.context("default"):
        matplotlib.rcParams.update({"font.size": 8, "text.parse_math": False})
        figure = Figure(figsize=(8, 1.5 * len(sounds) + 0.4), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)
        all_axes = figure.subplots(len(sounds), sharex=True, squeeze=False)[:, 0]
        for axes, (title, samples) in zip(all_axes, sounds.items(), strict=True):
            levels = _levels(samples)
            seconds = len(samples) / rate
            top = rate / 2 * levels.shape[0] / (WINDOW // 2 + 1)
            axes.imshow(levels, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, top / 1000))
            track = tracks[title]
            time = np.arange(len(track)) * seconds / max(1, len(track) - 1)
            overlay = axes.twinx()
            overlay.plot(time, track, ".", color="#3fd0ff", markersize=3)
            overlay.set(ylim=(0, 400), ylabel="F0, Hz")
            axes.set(xlim=(0, longest), ylim=(0, HIGHEST / 1000), ylabel="kHz")
            median = np.nanmedian(track) if np.isfinite(track).any() else None
            axes.set_title(f"{title}: {'no F0' if median is None else f'median F0 {median:.0f} Hz'}", loc="left")
        all_axes[-1].set_xlabel("seconds")
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def _levels(samples: np.ndarray) -> np.ndarray:
    """dB [bins, frames] below the loudest, down to -DEPTH."""
    padded = np.pad(np.asarray(samples, np.float32), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames)).T ** 2
    return (10 * np.log10(power / max(power.max(), 1e-12) + 1e-12)).clip(-DEPTH, 0)
