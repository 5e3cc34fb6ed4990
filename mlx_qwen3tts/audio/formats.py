"""The formats of a stream. Imports nothing, as the help of `serve` names them."""

# format: content type. opus is Ogg Opus, pcm is signed 16-bit little-endian, aac is ADTS.
CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
