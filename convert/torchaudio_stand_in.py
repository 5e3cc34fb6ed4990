"""Import before qwen_tts: an empty torchaudio, which serves only the 25 Hz codec and is not always to be had."""

import importlib.machinery
import sys
import types

for _name in ("torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi"):
    _module = types.ModuleType(_name)
    _module.__spec__ = importlib.machinery.ModuleSpec(_name, None)
    sys.modules.setdefault(_name, _module)
sys.modules["torchaudio"].compliance = sys.modules["torchaudio.compliance"]
sys.modules["torchaudio.compliance"].kaldi = sys.modules["torchaudio.compliance.kaldi"]
