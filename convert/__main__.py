"""`python -m convert` from the repository root: the package's own convert command."""

from mlx_qwen3tts.convert import main

main()
