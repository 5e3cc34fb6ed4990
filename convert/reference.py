"""Run cases through the official PyTorch package and save what it gives. Runs in that package's own environment.

    REFERENCE_PYTHON convert/reference.py JOB.json OUT.npz

JOB.json: {"model": folder, "cases": [case, …]}; the kinds of case are the functions named `run_…` below. Arrays land in
OUT.npz as `case/array`. Nothing of this project is imported here but the empty torchaudio, so that the oracle stays
independent.
"""

import copy
import json
import sys

import numpy as np
import torch
import torchaudio_stand_in  # noqa: F401  (beside this script)
from qwen_tts import Qwen3TTSModel
from qwen_tts.core.models.modeling_qwen3_tts import mel_spectrogram
from qwen_tts.inference.qwen3_tts_model import VoiceClonePromptItem
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


class Recorder(LogitsProcessor):
    """Keeps, for every token, the distance of the two best processed logits."""

    def __init__(self):
        self.gaps = []

    def __call__(self, input_ids, scores):
        best = scores[0].topk(2).values
        self.gaps.append(float(best[0] - best[1]))
        return scores


class Morph:
    """Wraps the talker's decoder: before each step the cache is edited for another speaker vector.

    The keys and values from the speaker's position to the prompt's end are those that the decoder itself makes of these
    positions, given the cache's own prefix.
    """

    def __init__(self, talker, case):
        self.forward, self.frames = talker.model.forward, case["morph"]["frames"]
        self.start, self.end = (torch.tensor(case[name], dtype=torch.float32) for name in ("vector", "morph_vector"))
        # role, tags (auto has no language tag), speaker
        self.place = 3 + (3 if case["language"].lower() == "auto" else 4)
        self.prompt, self.pad, self.step = None, None, 0

    def __call__(self, *args, **kwargs):
        embeddings, cache = kwargs["inputs_embeds"], kwargs["past_key_values"]
        if embeddings.shape[1] == 1:
            self.step += 1
            t = min(1.0, self.step / self.frames)
            self.edit(cache, (1 - t) * self.start + t * self.end)
        return self.forward(*args, **kwargs)

    def edit(self, cache, vector):
        rest = self.prompt[:, self.place :].clone()
        rest[0, 0] = vector + self.pad
        own = copy.deepcopy(cache)
        own.crop(self.place)
        places = torch.arange(self.place, self.prompt.shape[1])
        rows = places.view(1, 1, -1).expand(3, 1, -1)
        self.forward(
            input_ids=None,
            inputs_embeds=rest,
            past_key_values=own,
            position_ids=rows,
            cache_position=places,
            attention_mask=torch.ones(1, self.prompt.shape[1], dtype=torch.long),
            use_cache=True,
        )
        for layer, made in zip(cache.layers, own.layers, strict=True):
            layer.keys[:, :, places], layer.values[:, :, places] = made.keys[:, :, places], made.values[:, :, places]


def run_speak(tts, case):
    """A text through the public API of the model's kind; ids, prompt, codes, audio and the gaps of every decision."""
    model, kept = tts.model, {}
    talker_generate, model_generate = model.talker.generate, model.generate
    talker, predictor = Recorder(), []
    morph = Morph(model.talker, case) if "morph" in case else None

    def record_talker(**kwargs):
        kept["prompt"] = kwargs["inputs_embeds"][0]
        kept["trailing"] = kwargs["trailing_text_hidden"][0]
        if morph:
            morph.prompt, morph.pad = kwargs["inputs_embeds"], kwargs["tts_pad_embed"][0, 0]
        return talker_generate(**kwargs, logits_processor=LogitsProcessorList([talker]))

    def record_model(**kwargs):
        kept["ids"] = kwargs["input_ids"][0][0]
        codes, hidden = model_generate(**kwargs)
        kept["codes"] = codes[0]
        return codes, hidden

    def record_head(_module, _inputs, output):
        best = output[0, -1].topk(2).values
        predictor.append(float(best[0] - best[1]))

    hooks = [head.register_forward_hook(record_head) for head in model.talker.code_predictor.lm_head]
    model.talker.generate, model.generate = record_talker, record_model
    if morph:
        model.talker.model.forward = morph
    options = {"do_sample": False, "subtalker_dosample": False, "max_new_tokens": case["max_tokens"]}
    options |= {"non_streaming_mode": case["layout"] == "full", "language": case["language"]}
    if "repetition_penalty" in case:
        options["repetition_penalty"] = case["repetition_penalty"]
    try:
        if "preset" in case:
            wavs, _ = tts.generate_custom_voice(
                case["text"], speaker=case["preset"], instruct=case.get("instruct"), **options
            )
        elif "vector" in case:
            vector = torch.tensor(case["vector"], dtype=torch.float32)
            item = VoiceClonePromptItem(None, vector, x_vector_only_mode=True, icl_mode=False)
            wavs, _ = tts.generate_voice_clone(case["text"], voice_clone_prompt=[item], **options)
        elif "audio" in case:
            only = "ref_text" not in case
            item = tts.create_voice_clone_prompt(case["audio"], case.get("ref_text"), x_vector_only_mode=only)
            wavs, _ = tts.generate_voice_clone(case["text"], voice_clone_prompt=item, **options)
        else:
            wavs, _ = tts.generate_voice_design(case["text"], instruct=case.get("instruct", ""), **options)
    finally:
        model.talker.generate, model.generate = talker_generate, model_generate
        if morph:
            model.talker.model.forward = morph.forward
        for hook in hooks:
            hook.remove()
    frames = len(kept["codes"])
    steps = len(model.talker.code_predictor.lm_head)
    gaps = np.array(predictor[: frames * steps], np.float32).reshape(frames, steps)
    first = np.array(talker.gaps[:frames], np.float32)[:, None]
    return {
        "ids": kept["ids"].numpy().astype(np.int32),
        "prompt": kept["prompt"].numpy(),
        "trailing": kept["trailing"].numpy(),
        "codes": kept["codes"].numpy().astype(np.int16),
        "gaps": np.concatenate([first, gaps], axis=1),
        "end_gap": np.array(talker.gaps[frames : frames + 1], np.float32),
        "tail": wavs[0][-1920:],
    }


class Prompted(Exception):
    """Raised where the talker would begin to speak: its prompt is all that is wanted."""


def prompt_of(tts, text, case):
    """The official prompt of a text: (embeddings [T, E], what is added to the steps [n, E], the text pad [E])."""
    generate = tts.model.talker.generate

    def stop(**kwargs):
        names = "inputs_embeds", "trailing_text_hidden", "tts_pad_embed"
        raise Prompted(*(kwargs[name][0].clone() for name in names))

    tts.model.talker.generate = stop
    vector = torch.tensor(case["vector"], dtype=torch.float32)
    item = VoiceClonePromptItem(None, vector, x_vector_only_mode=True, icl_mode=False)
    try:
        tts.generate_voice_clone(
            text,
            voice_clone_prompt=[item],
            language=case["language"],
            non_streaming_mode=case["layout"] == "full",
        )
    except Prompted as stopped:
        prompt, trailing, pad = stopped.args
        return prompt.clone(), trailing.clone(), pad[0].clone()
    finally:
        tts.model.talker.generate = generate
    raise AssertionError("the talker was not asked to speak")


def teacher_forced(tts, case, vector):
    """(inputs [B, T, E], which are not padding [B, T], the labels beside the positions that foresee them, -100 where
    there is none, [B, T], where a frame comes next [B, T], the codes of these frames [N, codebooks])."""
    talker, place = tts.model.talker, 3 + (3 if case["language"].lower() == "auto" else 4)
    rows, labels, before, kept = [], [], [], []
    for text, codes in zip(case["texts"], case["codes"], strict=True):
        prompt, trailing, pad = prompt_of(tts, text, case)
        codes = torch.tensor(codes)
        frames = talker.get_input_embeddings()(codes[:, 0])
        for book, table in enumerate(talker.code_predictor.get_input_embeddings()):
            frames = frames + table(codes[:, book + 1])
        steps = torch.cat([trailing, pad.expand(len(codes), -1)])[: len(codes)]
        prompt = torch.cat([prompt[:place], (vector + pad)[None], prompt[place + 1 :]])
        rows.append(torch.cat([prompt, frames + steps]))
        first = len(prompt) - 1
        label = torch.full((len(rows[-1]),), -100)
        label[first:-1], label[-1] = codes[:, 0], talker.config.codec_eos_token_id
        labels.append(label)
        foresees = torch.zeros(len(label), dtype=torch.bool)
        foresees[first:-1] = True
        before.append(foresees)
        kept.append(codes)
    pad_rows = torch.nn.utils.rnn.pad_sequence
    seen = pad_rows([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
    labels, before = pad_rows(labels, True, -100), pad_rows(before, True, False)
    return pad_rows(rows, batch_first=True), seen, labels, before, torch.cat(kept)


def run_loss(tts, case):
    """The official fine-tuning loss with its faults mended, some gradients, and the value that each fault gives."""
    talker, entropy = tts.model.talker, torch.nn.functional.cross_entropy
    predictor = talker.code_predictor
    vector = torch.tensor(case["vector"], dtype=torch.float32, requires_grad=True)
    x, seen, labels, before, codes = teacher_forced(tts, case, vector)

    def hidden_of(x):
        return talker.model(inputs_embeds=x, attention_mask=seen, use_cache=False).last_hidden_state

    def rest_of(states):
        logits, faulty = talker.forward_sub_talker_finetune(codes, states)
        return entropy(logits.flatten(0, 1), codes[:, 1:].flatten()), faulty

    hidden = hidden_of(x)
    first = entropy(talker.codec_head(hidden).flatten(0, 1), labels.flatten())
    rest, book = rest_of(hidden[before])
    weights = {
        "vector": vector,
        "talker_q": talker.model.layers[0].self_attn.q_proj.weight,
        "predictor_v": predictor.model.layers[0].self_attn.v_proj.weight,
        "last_head": predictor.lm_head[-1].weight,
    }
    gradients = torch.autograd.grad(first + 0.3 * rest, list(weights.values()))
    found = {f"gradient_{name}": value.detach().numpy() for name, value in zip(weights, gradients, strict=True)}
    after = torch.cat([torch.zeros_like(before[:, :1]), before[:, :-1]], dim=1)
    with torch.no_grad():
        twice = talker(inputs_embeds=x, attention_mask=seen, labels=labels, use_cache=False).loss
        late = rest_of(hidden[after])[0]
        projection, talker.text_projection = talker.text_projection, torch.nn.Identity()
        try:
            bare = hidden_of(teacher_forced(tts, case, vector)[0])
            unprojected = float(entropy(talker.codec_head(bare).flatten(0, 1), labels.flatten()))
        except RuntimeError:  # the text is as wide as the talker at 1.7B alone
            unprojected = float("nan")
        finally:
            talker.text_projection = projection
    values = {"first": first, "rest": rest, "fault_twice": twice, "fault_after": late, "fault_book": book}
    found |= {name: np.float64(float(value.detach())) for name, value in values.items()}
    found["fault_projection"] = np.float64(unprojected)
    for name in weights:  # not all of it, so that goldens stay small
        gradient = found.pop(f"gradient_{name}").ravel()
        found[f"norm_{name}"] = np.float64(np.linalg.norm(gradient.astype(np.float64)))
        found[f"gradient_{name}"] = gradient[:: max(1, gradient.size // 500) | 1]
    return found


def run_tokenize(tts, case):
    """Ids of the filled-in template."""
    return {str(i): tts._tokenize_texts([tts._build_assistant_text(text)])[0][0].numpy().astype(np.int32)
            for i, text in enumerate(case["texts"])}  # fmt: skip


def run_embed(tts, case):
    """The speaker's vector and the log-mel spectrogram of a recording."""
    [(samples, rate)] = tts._normalize_audio_inputs([case["audio"]])
    item = tts.create_voice_clone_prompt(case["audio"], x_vector_only_mode=True)[0]
    result = {"vector": item.ref_spk_embedding.numpy()}
    if rate == 24000:
        # n_fft, bands, sample rate, hop, window, lowest and highest frequency as the official package calls it
        mel = mel_spectrogram(torch.tensor(samples)[None], 1024, 128, 24000, 256, 1024, 0, 12000)
        result["mel"] = mel[0].T.numpy()[: case.get("mel_frames")]
    return result


def run_encode(tts, case):
    """The codec's codes of a recording."""
    return {"codes": tts.model.speech_tokenizer.encode(case["audio"]).audio_codes[0].numpy().astype(np.int16)}


def run_decode(tts, case):
    """The decoder in a single pass over given codes; every `stride`-th sample and the last frame."""
    codes = torch.tensor(np.load(case["codes"]).astype(np.int64))
    with torch.inference_mode():
        audio = tts.model.speech_tokenizer.model.decoder(codes.T[None])[0, 0].numpy()
    return {"samples": audio[:: case["stride"]], "tail": audio[-1920:], "peak": np.abs(audio).max()}


def run_sampling(_tts, case):
    """Probabilities after the official chain, in the order in which `generate` builds it, for rows of logits."""
    scores = torch.tensor(np.load(case["logits"]))
    history = torch.tensor(case["history"], dtype=torch.long)[None].expand(len(scores), -1)
    settings = case["settings"]
    chain = LogitsProcessorList()
    if settings.get("repetition_penalty", 1.0) != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]))
    chain.append(MinNewTokensLengthLogitsProcessor(0, 2, settings["end"], device="cpu"))
    barred = range(scores.shape[1] - 1024, scores.shape[1])
    chain.append(SuppressTokensLogitsProcessor([i for i in barred if i != settings["end"]], device="cpu"))
    if settings["temperature"] != 1.0:
        chain.append(TemperatureLogitsWarper(settings["temperature"]))
    if settings["top_k"] != 0:
        chain.append(TopKLogitsWarper(settings["top_k"]))
    if settings["top_p"] < 1.0:
        chain.append(TopPLogitsWarper(settings["top_p"]))
    probabilities = torch.softmax(chain(history, scores), dim=-1).numpy()
    rows, columns = np.nonzero(probabilities)
    return {"rows": rows.astype(np.int16), "columns": columns.astype(np.int16), "values": probabilities[rows, columns]}


def main():
    job_path, out = sys.argv[1:]
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    torch.set_num_threads(2)
    tts = Qwen3TTSModel.from_pretrained(job["model"], dtype=torch.float32)
    arrays = {}
    for case in job["cases"]:
        print(f"reference: {case['name']}", file=sys.stderr, flush=True)
        for key, value in globals()[f"run_{case['kind']}"](tts, case).items():
            arrays[f"{case['name']}/{key}"] = value
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main()
