"""Sizes of the speaker encoder."""

CHANNELS = 64
SPEAKER = {
    "enc_dim": 192,
    "sample_rate": 24000,
    "enc_channels": [CHANNELS] * 4 + [3 * CHANNELS],
    "enc_attention_channels": 32,
    "enc_se_channels": 32,
}
