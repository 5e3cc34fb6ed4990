"""The miniature's codec: the official classes at toy size, the quantiser as it trains, and the spectra it is judged
by."""

import copy
import functools
import json
from pathlib import Path

import librosa
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from .espeak import RATE, SAMPLES_PER_FRAME
from .official import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model

CODEBOOKS, CODES, SIZE = 8, 256, 32
PERIODS = SIZE  # kinds of a frame's pitch: periods in it, 0 for none


def config(decoder=192, latent=128, filters=8, hidden=96):
    """The codec's config.json, the published one with every width made small."""
    small = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "head_dim": hidden // 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 2,
        "num_quantizers": CODEBOOKS,
        "codebook_size": CODES,
        "layer_scale_initial_scale": 0.1,
    }
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": CODEBOOKS,
        "input_sample_rate": RATE,
        "output_sample_rate": RATE,
        "encode_downsample_rate": SAMPLES_PER_FRAME,
        "decode_upsample_rate": SAMPLES_PER_FRAME,
        "encoder_config": {
            **small,
            "codebook_dim": SIZE,
            "num_filters": filters,
            "vector_quantization_hidden_dimension": SIZE,
            "upsample_groups": hidden,
            "_frame_rate": 12.5,
            "audio_channels": 1,
            "sampling_rate": RATE,
            "upsampling_ratios": [8, 6, 5, 4],
            "sliding_window": 250,
            "num_semantic_quantizers": 1,
            "use_causal_conv": True,
            "use_conv_shortcut": False,
        },
        "decoder_config": {
            **small,
            "latent_dim": latent,
            "codebook_dim": 2 * SIZE,
            "decoder_dim": decoder,
            "semantic_codebook_size": CODES,
            "vector_quantization_hidden_dimension": 2 * SIZE,
            "num_semantic_quantizers": 1,
            "upsample_rates": [8, 5, 4, 3],
            "upsampling_ratios": [2, 2],
            "sliding_window": 72,
        },
    }


def build(settings):
    settings = {k: v for k, v in copy.deepcopy(settings).items() if k not in ("architectures", "model_type")}
    return Qwen3TTSTokenizerV2Model(Qwen3TTSTokenizerV2Config(**settings))


def load(folder):
    """The codec of a folder, in the official layout or in this package's."""
    settings = json.loads((Path(folder) / "config.json").read_text())
    in_mlx = settings.pop("conv_layout", None) == "mlx"
    model, tensors = build(settings), load_file(Path(folder) / "model.safetensors")
    fill(model, tensors, in_mlx)
    return model


def fill(model, tensors, in_mlx):
    """Load tensors {name: any floats} into a model. in_mlx: convolutions lie in the order of axes of this package."""
    if in_mlx:
        tensors = dict(tensors)
        for name, module in model.named_modules():
            if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                key, transposed = f"{name}.weight", isinstance(module, nn.ConvTranspose1d)
                tensors[key] = tensors[key].permute(*((2, 0, 1) if transposed else (0, 2, 1)))
    model.load_state_dict({name: value.float().contiguous() for name, value in tensors.items()})


def least_squares(into, out):
    """(matrix [A, B], offset [B], what of `out` they leave [N, B]): the best of `into` [N, A] to `out` [N, B]."""
    ones = F.pad(into, (0, 1), value=1.0)
    found = torch.linalg.lstsq(ones, out).solution
    return found[:-1], found[-1], out - ones @ found


def encode(model, sound):
    """Latents [B, hidden, N] of sounds [B, 1920 N], before the quantiser."""
    encoder = model.encoder
    latents = encoder.encoder(sound[:, None]).transpose(1, 2)
    return encoder.downsample(encoder.encoder_transformer(latents, return_dict=True)[0].transpose(1, 2))


LOW_RATE, LOW_BLOCKS = 2000, 3  # Hz of the hidden states after so many blocks of the upsampling chain


def decode_low(model, quantised):
    """Hidden states [B, channels, N LOW_RATE / 12.5] of quantised vectors [B, 2 SIZE, N]: the decoder's first half."""
    decoder = model.decoder
    hidden = decoder.pre_conv(quantised).transpose(1, 2)
    hidden = decoder.pre_transformer(inputs_embeds=hidden).last_hidden_state.transpose(1, 2)
    for blocks in decoder.upsample:
        for block in blocks:
            hidden = block(hidden)
    return _through(decoder.decoder[:LOW_BLOCKS], hidden)


def decode_rest(model, hidden):
    """Sounds [B, 1920 N] of the hidden states that `decode_low` gives."""
    return _through(model.decoder.decoder[LOW_BLOCKS:], hidden).squeeze(1)


def _through(blocks, hidden):
    for block in blocks:
        hidden = block(hidden)
    return hidden


def low_band(sound, highest=900):
    """[B, T / 12]: what of a sound [B, T] lies below `highest` Hz, at LOW_RATE."""
    length = sound.shape[-1]
    spectrum = torch.fft.rfft(sound)
    spectrum = spectrum * (torch.arange(spectrum.shape[-1], device=sound.device) * RATE / length < highest)
    short = length * LOW_RATE // RATE
    return torch.fft.irfft(spectrum[..., : short // 2 + 1], n=short) * (short / length)


class VectorQuantiser(nn.Module):
    """One codebook, learnt by exponential averages (van den Oord et al. 2017); codes that go unused start anew."""

    DECAY = 0.98

    def __init__(self):
        super().__init__()
        self.register_buffer("codebook", torch.zeros(CODES, SIZE))
        self.register_buffer("usage", torch.zeros(CODES))
        self.register_buffer("total", torch.zeros(CODES, SIZE))

    @torch.no_grad()
    def start(self, vectors, rounds=10):
        """k-means on vectors [N, SIZE]."""
        centres = vectors[torch.randperm(len(vectors))[:CODES]].clone()
        for _ in range(rounds):
            nearest = torch.cdist(vectors, centres).argmin(1)
            number = torch.bincount(nearest, minlength=CODES).float()
            total = torch.zeros_like(centres).index_add_(0, nearest, vectors)
            fresh = vectors[torch.randint(len(vectors), (CODES,))]
            centres = torch.where(number[:, None] > 0, total / number.clamp(min=1)[:, None], fresh)
        self.codebook.copy_(centres)
        self.usage.fill_(1.0)
        self.total.copy_(centres)

    def forward(self, vectors):
        nearest = torch.cdist(vectors.detach(), self.codebook).argmin(1)
        quantised = self.codebook[nearest]
        if self.training:
            with torch.no_grad():
                number = torch.bincount(nearest, minlength=CODES).float()
                total = torch.zeros_like(self.codebook).index_add_(0, nearest, vectors.detach())
                self.usage.mul_(self.DECAY).add_(number, alpha=1 - self.DECAY)
                self.total.mul_(self.DECAY).add_(total, alpha=1 - self.DECAY)
                dead = self.usage < 0.03
                if dead.any():
                    self.total[dead] = 0.3 * vectors.detach()[torch.randint(len(vectors), (int(dead.sum()),))]
                    self.usage[dead] = 0.3
                self.codebook.copy_(self.total / self.usage.clamp(min=1e-5)[:, None])
        return quantised, nearest


class Quantiser(nn.Module):
    """The split quantiser of Mimi: the first codebook alone, beside it a residual chain of the others.

    The first is not learnt: code k says that a frame has k periods (0: no voice), and its vector is the k-th unit
    vector. So the decoder is told the pitch exactly.
    """

    UNUSED = -30.0  # where the vectors of codes that mean no pitch lie, out of reach

    def __init__(self):
        super().__init__()
        self.books = nn.ModuleList(VectorQuantiser() for _ in range(CODEBOOKS - 1))

    @staticmethod
    def _parts(model):
        encoder, decoder = model.encoder.quantizer, model.decoder.quantizer
        first, rest = encoder.semantic_residual_vector_quantizer, encoder.acoustic_residual_vector_quantizer
        return (first.input_proj, decoder.rvq_first.output_proj), (rest.input_proj, decoder.rvq_rest.output_proj)

    @torch.no_grad()
    def start(self, model, latents):
        """Fold the latents' deviation into the projections, so that codebooks see unit variance, then k-means."""
        _, (into, out) = self._parts(model)
        deviation = into(latents).var((0, 2)).mean().sqrt()
        into.weight.div_(deviation)
        out.weight.mul_(deviation)
        residual = into(latents).transpose(1, 2).reshape(-1, SIZE)
        for book in self.books:
            book.start(residual)
            residual = residual - book.codebook[torch.cdist(residual, book.codebook).argmin(1)]

    @torch.no_grad()
    def take(self, model):
        """Take the codebooks of a codec that is trained already: the inverse of `export`."""
        chain = model.encoder.quantizer.acoustic_residual_vector_quantizer.layers
        for book, layer in zip(self.books, chain, strict=True):
            book.codebook.copy_(layer.codebook.embed)
            book.usage.fill_(1.0)
            book.total.copy_(book.codebook)

    def forward(self, model, latents, periods=None, continuous=False):
        """What latents [B, hidden, N] become: quantised vectors [B, 2 SIZE, N] with a straight-through gradient, codes
        [B, N, CODEBOOKS], the commitment loss, and the logits [B, PERIODS, N] of the pitch.

        periods: [B, N] the true pitch, which is then told instead of the likeliest; continuous: the rest unquantised.
        """
        (first_in, first_out), (rest_in, rest_out) = self._parts(model)
        batch, _, frames = latents.shape
        logits = first_in(latents)
        pitch = logits.argmax(1) if periods is None else periods
        told = first_out(F.one_hot(pitch, PERIODS).transpose(1, 2).float())
        if continuous:
            return told + rest_out(rest_in(latents)), None, torch.zeros(()), logits
        rest = rest_in(latents).transpose(1, 2).reshape(-1, SIZE)
        variance = rest.var(0).mean().detach() + 1e-2
        residual, total, commitment, codes = rest, 0, 0, [pitch.flatten()]
        for book in self.books:
            quantised, code = book(residual)
            commitment = commitment + 0.5 * F.mse_loss(residual, quantised) / variance
            residual, total = residual - quantised, total + quantised
            codes.append(code)
        rest = (rest + (total - rest).detach()).view(batch, frames, SIZE).transpose(1, 2)
        return told + rest_out(rest), torch.stack(codes, 1).view(batch, frames, -1), commitment, logits

    @torch.no_grad()
    def export(self, model):
        """Write the codebooks into the official modules."""
        encoder, decoder = model.encoder.quantizer, model.decoder.quantizer
        into = [
            *encoder.semantic_residual_vector_quantizer.layers,
            *encoder.acoustic_residual_vector_quantizer.layers,
        ]
        out = [*decoder.rvq_first.vq.layers, *decoder.rvq_rest.vq.layers]
        pitch = torch.full((CODES, SIZE), self.UNUSED)
        pitch[:PERIODS] = torch.eye(PERIODS)
        books = [pitch, *(book.codebook for book in self.books)]
        for book, one, other in zip(books, into, out, strict=True):
            one.codebook.embed_sum.copy_(book)
            one.codebook.cluster_usage.fill_(1)
            one.codebook._embed = None
            other._codebook.embedding_sum.copy_(book)
            other._codebook.cluster_usage.fill_(1)


@functools.cache
def mels(window, number, device="cpu"):
    return torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=window, n_mels=number)).float().to(device)


@functools.cache
def hann(window, device="cpu"):
    return torch.hann_window(window, device=device)


def magnitudes(sound, window, hop):
    """[B, window / 2 + 1, T + 1], centred."""
    spectrum = torch.stft(sound, window, hop, window, hann(window, str(sound.device)), return_complex=True)
    return torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-7)


def targets(sound):
    """What the codes must tell, a column of 1120 a frame: log mel spectra at 10 ms and, for the pitch, at 40 ms.

    Of the 40 ms windows of 85 ms both a mel spectrum and the plain one below 1.5 kHz, where harmonics stand apart. No
    window reaches more than 64 samples beyond its frame, so a causal encoder can know all of it.
    """
    device = str(sound.device)
    short = torch.log(mels(512, 80, device) @ magnitudes(sound, 512, 240)[..., :-1] + 1e-3)
    long = magnitudes(sound, 2048, 960)[..., :-1]
    tone = torch.log(long[:, 4:132] + 1e-1)
    long = torch.log(mels(2048, 112, device) @ long + 1e-3)
    return torch.cat([_frames(short, 8), _frames(long, 2), _frames(tone, 2)], 1)


def _frames(spectrum, each):
    batch, bins, columns = spectrum.shape
    return spectrum.view(batch, bins, columns // each, each).transpose(2, 3).reshape(batch, bins * each, -1)


def wave_loss(made, meant, window):
    """Distance of the complex spectra below 3 kHz, over the meant one's size."""
    a, b = (
        torch.stft(x, window, window // 4, window, hann(window, str(x.device)), return_complex=True)[:, : window // 8]
        for x in (made, meant)
    )
    return 0.5 * torch.view_as_real(a - b).abs().mean() / (torch.view_as_real(b).abs().mean() + 1e-3)


def spectral_loss(made, meant):
    """L1 of log mel, log and plain magnitudes at four resolutions; the longest, which hears the pitch, counts most."""
    device = str(made.device)
    # The pitch is locked to the frames, so the low part of the wave itself follows from the codes.
    loss = 2 * sum(wave_loss(made, meant, window) for window in (512, 2048))
    for window, hop, number, weight in (
        (2048, 480, 160, 2.0),
        (1024, 240, 96, 1.0),
        (512, 120, 64, 1.0),
        (256, 60, 32, 1.0),
    ):
        a = magnitudes(made, window, hop)
        with torch.no_grad():
            b = magnitudes(meant, window, hop)
        part = (
            (torch.log(mels(window, number, device) @ a + 1e-4) - torch.log(mels(window, number, device) @ b + 1e-4))
            .abs()
            .mean()
        )
        if window >= 1024:
            part = part + 0.5 * (torch.log(a + 1e-2) - torch.log(b + 1e-2)).abs().mean()
        loss = loss + weight * (part + 0.5 * (a - b).abs().mean() / (b.mean() + 1e-3))
    return loss / 5
