"""The talker and the code predictor in torch, under the published tensor names, as they are trained.

The same as the official classes where nothing is cached (`tests` compares it with the package): Qwen3 layers, and plain
rotary positions, as the three rows of the talker's are equal in speech. B batch, T positions, E width, N frames.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    """Root mean square norm."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def rotation(length, dim, base, device):
    """(cosines, sines), [length, dim / 2] each."""
    frequencies = 1 / base ** (torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()


def turned(x, cosines, sines):
    """x [B, heads, T, D] rotated, in the half-split form."""
    one, other = x.chunk(2, -1)
    cosines, sines = cosines.to(x.dtype), sines.to(x.dtype)
    return torch.cat([one * cosines - other * sines, other * cosines + one * sines], -1)


def attend(q, k, v):
    """Causal attention; q, k, v [B, heads, T, D].

    On a CPU torch's own takes six times as long backward as these products do, at the hundred positions of a row.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    length = q.shape[2]
    future = torch.full((length, length), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    return torch.softmax(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + future, -1) @ v


class Attention(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.heads, self.kv, self.dim = (size[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim"))
        width = size["hidden_size"]
        self.q_proj = nn.Linear(width, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv * self.dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, width, bias=False)
        self.q_norm, self.k_norm = (Norm(self.dim, size["rms_norm_eps"]) for _ in range(2))

    def forward(self, x, rotate):
        batch, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, length, self.heads, self.dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, length, self.kv, self.dim)).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv, self.dim).transpose(1, 2)
        q, k = turned(q, *rotate), turned(k, *rotate)
        share = self.heads // self.kv
        k, v = (y[:, :, None].expand(-1, -1, share, -1, -1).flatten(1, 2) for y in (k, v))
        out = attend(q, k, v)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, size):
        super().__init__()
        width, inner = size["hidden_size"], size["intermediate_size"]
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.self_attn, self.mlp = Attention(size), MLP(size)
        self.input_layernorm, self.post_attention_layernorm = (
            Norm(size["hidden_size"], size["rms_norm_eps"]) for _ in range(2)
        )

    def forward(self, x, rotate):
        x = x + self.self_attn(self.input_layernorm(x), rotate)
        return x + self.mlp(self.post_attention_layernorm(x))


class Stack(nn.Module):
    """Layers and the final norm."""

    def __init__(self, size):
        super().__init__()
        self.dim, self.base = size["head_dim"], size["rope_theta"]
        self.layers = nn.ModuleList(Layer(size) for _ in range(size["num_hidden_layers"]))
        self.norm = Norm(size["hidden_size"], size["rms_norm_eps"])

    def forward(self, x, early=0):
        """(hidden states after the norm, those after layer `early`), both [B, T, E]."""
        rotate, middle = rotation(x.shape[1], self.dim, self.base, x.device), x
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, rotate)
            if number == early:
                middle = x
        return self.norm(x), middle


class Predictor(nn.Module):
    def __init__(self, size, width):
        super().__init__()
        books = size["num_code_groups"] - 1
        self.model = Stack(size)
        self.model.codec_embedding = nn.ModuleList(nn.Embedding(size["vocab_size"], width) for _ in range(books))
        self.lm_head = nn.ModuleList(
            nn.Linear(size["hidden_size"], size["vocab_size"], bias=False) for _ in range(books)
        )
        if size["hidden_size"] != width:
            self.small_to_mtp_projection = nn.Linear(width, size["hidden_size"])

    def forward(self, steps):
        """Logits [N, books, size] of the embeddings [N, books + 1, E] of hidden state and codes before each."""
        x = self.small_to_mtp_projection(steps) if hasattr(self, "small_to_mtp_projection") else steps
        out, _ = self.model(x)
        return torch.stack([head(out[:, b + 1]) for b, head in enumerate(self.lm_head)], 1)


class Talker(nn.Module):
    """Talker and code predictor; the state dict has the published names without `talker.` before them."""

    def __init__(self, settings):
        super().__init__()
        size = settings["talker_config"]
        width, text = size["hidden_size"], size["text_hidden_size"]
        self.model = Stack(size)
        self.model.codec_embedding = nn.Embedding(size["vocab_size"], width)
        self.model.text_embedding = nn.Embedding(size["text_vocab_size"], text)
        self.text_projection = nn.Module()
        self.text_projection.linear_fc1 = nn.Linear(text, text)
        self.text_projection.linear_fc2 = nn.Linear(text, width)
        self.codec_head = nn.Linear(width, size["vocab_size"], bias=False)
        self.code_predictor = Predictor(size["code_predictor_config"], width)
        self.apply(initialise)
        with torch.no_grad():
            self.model.text_embedding.weight.normal_(0, 1)
            for name, value in self.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    value.mul_(0.5)
            for head in (self.codec_head, *self.code_predictor.lm_head):
                head.weight.mul_(0.3)

    def inputs(self, text, spoken, codes, known, vector, place):
        """Embeddings [B, T, E] of a batch of `prompts.Prompts`."""
        projection = self.text_projection
        x = projection.linear_fc2(F.silu(projection.linear_fc1(self.model.text_embedding(text))))
        x = x + self.model.codec_embedding(spoken.clamp(min=0)) * (spoken >= 0)[..., None]
        frame = self.model.codec_embedding(codes[..., 0])
        for book, table in enumerate(self.code_predictor.model.codec_embedding):
            frame = frame + table(codes[..., book + 1])
        x = x + frame * known[..., None]
        return x + F.one_hot(place, x.shape[1])[..., None] * vector[:, None].to(x.dtype)

    def rest(self, hidden, codes):
        """Logits [N, books - 1, size] of the codebooks after the first; hidden [N, E], codes [N, books]."""
        tables = (self.model.codec_embedding, *self.code_predictor.model.codec_embedding[:-1])
        steps = [hidden, *(table(codes[:, b]).to(hidden.dtype) for b, table in enumerate(tables))]
        return self.code_predictor(torch.stack(steps, 1))


@torch.no_grad()
def initialise(module):
    """Products that keep the size of what passes, embeddings of a third of it."""
    if isinstance(module, nn.Linear):
        module.weight.normal_(0, module.in_features**-0.5)
        if module.bias is not None:
            module.bias.zero_()
    elif isinstance(module, nn.Embedding):
        module.weight.normal_(0, 0.35)


class Teacher(nn.Module):
    """What the talker's hidden states should tell, read off them while it learns: no part of the model.

    After layer `early` they tell the two phones of the frame to come and, as a pointer to one of the positions before,
    the token that is being said; the last ones tell codebooks two and three. Without it the first codebook, which is
    the pitch, says little of the text, and the talker finds its way in it late or never (see README.md).
    """

    POINTER = 64

    def __init__(self, settings, phones):
        super().__init__()
        size = settings["talker_config"]
        width = size["hidden_size"]
        self.early = -(-size["num_hidden_layers"] // 2)
        self.codes = nn.ModuleList(nn.Linear(width, size["code_predictor_config"]["vocab_size"]) for _ in range(2))
        self.norm = Norm(width, 1e-6)
        self.phones = nn.ModuleList(nn.Linear(width, phones) for _ in range(2))
        self.asks, self.answers = (nn.Linear(width, self.POINTER) for _ in range(2))

    def pointer(self, early, words):
        """Scores [B, T, T] of where in the text each position is; early: normed hidden states, words [B, T]."""
        scores = self.asks(early) @ self.answers(early).transpose(1, 2) * self.POINTER**-0.5
        length = early.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool, device=early.device).tril() & words[:, None]
        return scores.float().masked_fill(~seen, -1e9)


NAMES = ("first", "rest", "content", "phones", "pointer", "right_first", "right_rest", "right_phone", "right_spot")
WEIGHTS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.2, 0.2)  # of the codebooks after the first, of which the early ones say most
VECTOR_NOISE, WRONG, DROPPED = 0.05, 0.08, 0.05


def losses(talker, teacher, batch, noise):
    """{name of NAMES: scalar}: cross entropies and how often each is right.

    noise: whether the voice is a little off and some frames are wrong, as they will be when it speaks by itself.
    """
    vector, codes = batch["vector"], batch["codes"]
    if noise:
        vector = vector + VECTOR_NOISE * torch.randn_like(vector)
        size = talker.code_predictor.lm_head[0].weight.shape[0]
        wrong = (torch.rand(codes.shape[:2], device=codes.device) < WRONG)[..., None]
        wrong = wrong & (torch.rand(codes.shape, device=codes.device) < 0.5)
        codes = torch.where(wrong, torch.randint_like(codes, size), codes)
    x = talker.inputs(batch["text"], batch["spoken"], codes, batch["known"], vector, batch["place"])
    if noise:
        x = F.dropout(x, DROPPED)
    hidden, early = talker.model(x, teacher.early)
    logits, label = talker.codec_head(hidden).float(), batch["label"]
    told = {"first": F.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-100)}
    predicts, following = batch["predicts"], batch["following"]

    def over_frames(scores, wanted):
        return F.cross_entropy(scores.float().flatten(0, 1), wanted.masked_fill(~predicts, -100).flatten())

    told["content"] = sum(over_frames(head(hidden), following[..., b + 1]) for b, head in enumerate(teacher.codes)) / 2
    normed = teacher.norm(early)
    guesses = [head(normed) for head in teacher.phones]
    told["phones"] = sum(over_frames(guess, batch["phones"][..., k]) for k, guess in enumerate(guesses)) / 2
    where, spot = teacher.pointer(normed, batch["words"]), batch["spot"]
    told["pointer"] = F.cross_entropy(where.flatten(0, 1), spot.flatten(), ignore_index=-100)
    chosen = batch["chosen"]
    codes = following.flatten(0, 1)[chosen]
    guess = talker.rest(hidden.flatten(0, 1)[chosen], codes).float()
    each = F.cross_entropy(guess.flatten(0, 1), codes[:, 1:].flatten(), reduction="none").view(len(codes), -1).mean(0)
    weights = each.new_tensor(WEIGHTS[: len(each)])
    told["rest"] = (each * weights).sum()
    with torch.no_grad():
        frames, spots = predicts.sum(), (spot >= 0).sum()
        told["right_first"] = (logits.argmax(-1) == label).sum() / (label >= 0).sum()
        told["right_rest"] = (guess.argmax(-1) == codes[:, 1:]).float().mean()
        told["right_phone"] = ((guesses[1].argmax(-1) == batch["phones"][..., 1]) & predicts).sum() / frames
        told["right_spot"] = (where.argmax(-1) == spot).sum() / spots
    return {name: told[name] for name in NAMES}


def total(told):
    """The loss that is minimised."""
    return told["first"] + told["rest"] + told["content"] + told["phones"] + told["pointer"]
