"""Log-mel spectrogram for the speaker encoder, as the official package computes it.

24 kHz mono, reflect padding of (n_fft - hop) / 2, no centring, periodic Hann window, magnitude sqrt(re² + im² + 1e-9),
Slaney mel bands with Slaney norm, log of max(x, 1e-5).
"""

import functools

import mlx.core as mx
import numpy as np

from ...errors import AudioError

SAMPLE_RATE, FFT, HOP, TOP_HZ = 24000, 1024, 256, 12000


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


@functools.lru_cache
def filterbank(bands: int) -> np.ndarray:
    """Triangular filters of unit area (Slaney norm), float32 [bands, FFT / 2 + 1]."""
    top = 15 + np.log(TOP_HZ / 1000) * 27 / np.log(6.4)
    edges = _slaney_hz(np.linspace(0, top, bands + 2))  # [bands + 2] Hz
    bins = np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    ramps = edges[:, None] - bins[None]
    widths = np.diff(edges)[:, None]
    rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


@functools.lru_cache
def window() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)


def log_mel(audio: mx.array, bands: int = 128) -> mx.array:
    """audio: [samples] float32 at 24 kHz, at least 385 samples. Returns [frames, bands] float32."""
    pad = (FFT - HOP) // 2
    if audio.shape[0] <= pad:
        raise AudioError(f"audio of {audio.shape[0]} samples is too short for a mel spectrogram")
    audio = mx.concatenate([audio[1 : pad + 1][::-1], audio, audio[-pad - 1 : -1][::-1]])
    frames = mx.as_strided(mx.contiguous(audio), ((audio.shape[0] - FFT) // HOP + 1, FFT), (HOP, 1))
    spectrum = mx.fft.rfft(frames * mx.array(window()))
    magnitude = mx.sqrt(mx.square(mx.real(spectrum)) + mx.square(mx.imag(spectrum)) + 1e-9)
    return mx.log(mx.maximum(magnitude @ mx.array(filterbank(bands)).T, 1e-5))
