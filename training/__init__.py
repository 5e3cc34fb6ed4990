"""The recipe of the miniature: a checkpoint of Qwen3-TTS's own architecture, small enough to ship, that really
speaks."""
