"""What a sound says about its voice, by measures that know nothing of how it was made: F0, formants, brightness."""

import librosa
import numpy as np
from scipy.signal import resample_poly

RATE = 24000
OCTAVE = 48  # bins of the logarithmic frequency axis
LOWEST, HIGHEST = 300.0, 6000.0  # Hz, where formants are looked for


def f0_track(sound):
    """F0 in Hz every 20 ms by pYIN (Mauch and Dixon 2014), NaN where there is no voice."""
    half = resample_poly(np.asarray(sound, np.float32), 1, 2)
    track, voiced, _ = librosa.pyin(half, fmin=60, fmax=420, sr=RATE // 2, frame_length=1024, hop_length=240)
    return np.where(voiced, track, np.nan)


def f0(sound):
    """F0 in Hz: the geometric mean of the middle 80 % of the voiced frames; NaN where fewer than ten are.

    A median would jump: in the miniature's speech F0 moves in steps.
    """
    track = f0_track(sound)
    track = np.log(np.sort(track[np.isfinite(track)]))
    if len(track) < 10:
        return float("nan")
    return float(np.exp(track[len(track) // 10 : len(track) - len(track) // 10].mean()))


def envelope(sound):
    """Long-term log spectrum [bins] over a logarithmic frequency axis, harmonics smoothed away, mean removed."""
    power = np.abs(librosa.stft(np.asarray(sound, np.float32), n_fft=1024, hop_length=256)) ** 2
    power = power[:, power.sum(0) > 0.01 * power.sum(0).max()].mean(1)
    cepstrum = np.fft.irfft(np.log(power + 1e-9))
    cepstrum[40:-39] = 0  # quefrencies above 1.7 ms: the periods of F0
    smooth = np.fft.rfft(cepstrum).real
    axis = LOWEST * 2 ** (np.arange(int(np.log2(HIGHEST / LOWEST) * OCTAVE)) / OCTAVE)
    curve = np.interp(axis, np.arange(513) * RATE / 1024, smooth)
    return curve - curve.mean()


def formant_shift(sound, other):
    """By what factor the formants of `sound` lie above those of `other`, which says the same words.

    The shift along a logarithmic frequency axis at which the two long-term envelopes agree best, between 0.6 and 1.67.
    """
    one, two = envelope(sound), envelope(other)
    shifts = range(-35, 36)
    agreement = []
    for shift in shifts:
        a, b = (one[shift:], two[: len(two) - shift]) if shift >= 0 else (one[:shift], two[-shift:])
        agreement.append(np.corrcoef(a, b)[0, 1])
    best = int(np.argmax(agreement))
    offset = 0.0
    if 0 < best < len(agreement) - 1:  # a parabola through the best three
        left, peak, right = agreement[best - 1 : best + 2]
        offset = 0.5 * (left - right) / (left - 2 * peak + right)
    return float(2 ** ((shifts[best] + offset) / OCTAVE))


def brightness(sound):
    """Power at 2 to 4 kHz over power below 700 Hz, in dB."""
    power = (np.abs(librosa.stft(np.asarray(sound, np.float32), n_fft=1024)) ** 2).sum(1)
    axis = np.arange(513) * RATE / 1024
    return float(10 * np.log10(power[(axis > 2000) & (axis < 4000)].sum() / power[axis < 700].sum()))
