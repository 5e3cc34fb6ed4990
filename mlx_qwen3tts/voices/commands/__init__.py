"""The commands of `mlx_qwen3tts.voices`, a group in each file: their options, and what they do.

Whatever loads MLX is imported where a command runs, since `--help` must answer at once.
"""
