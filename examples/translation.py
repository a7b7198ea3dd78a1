"""Population based training in machine translation: schedules of the learning rate and of three dropout rates.

Every member is a small Transformer (Vaswani et al. 2017, arXiv:1706.03762). What decides is BLEU: of whole sentences,
on the validation set, by ``sacrebleu``. No gradient leads there; population based training needs none.

    pip install 'tunesmith[translation]'
    python examples/translation.py --width 32 --updates 50      # digits, to words backwards: minutes on a laptop
    python examples/translation.py --data multi30k              # English to German: for a GPU

The second needs a folder with the raw texts of Multi30k (Elliott et al. 2016, arXiv:1605.00459): ``train.en.gz``,
``train.de.gz``, and the same of ``val`` and ``test_2016_flickr``. They are in ``data/task1/raw`` of
https://github.com/multi30k/dataset.
"""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import sentencepiece
from ablations import Problem, parser, run
from jax import numpy as jnp
from jax.flatten_util import ravel_pytree
from sacrebleu.metrics import BLEU

import tunesmith as ts
from tunesmith.execution import JaxTask

PAD, BEGIN, END, UNKNOWN = range(4)
PARTS = ("train", "val", "test_2016_flickr")
DIGITS = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")


class Corpus(NamedTuple):
    """Sentences as numbers of pieces [sentences, places]: END behind the last piece, then PAD.

    Attributes:
        pieces: between text and numbers.
        train: English and German, for training.
        english: what is translated: the validation set, then the test set.
        first: sentences of the validation set.
        validation, test: BLEU with their German sentences as references.
    """

    pieces: sentencepiece.SentencePieceProcessor
    train: tuple[Any, Any]
    english: Any
    first: int
    validation: BLEU
    test: BLEU


@cache
def corpus(folder: str | None, vocabulary: int, longest: int) -> Corpus:
    """Read or make the texts, learn the pieces from those for training, and leave out pairs of more than so many."""
    train, validation, test = (read(folder, part) if folder else digits(part) for part in PARTS)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(train[0] + train[1]), model_writer=model, model_type="bpe", vocab_size=vocabulary,
        pad_id=PAD, bos_id=BEGIN, eos_id=END, unk_id=UNKNOWN, normalization_rule_name="identity",
        character_coverage=1.0, num_threads=1, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pairs = zip(*map(pieces.encode, train), strict=True)
    english, german = zip(*(pair for pair in pairs if max(map(len, pair)) < longest), strict=True)
    places = 1 + max(map(len, english + german))
    given = padded(pieces.encode(validation[0] + test[0]), places * 3 // 2)  # no sentence may be left out here
    scores = (BLEU(references=[german], force=True) for _, german in (validation, test))  # force: without a warning
    return Corpus(pieces, (padded(english, places), padded(german, places)), given, len(validation[0]), *scores)


def read(folder: str, part: str) -> tuple[list[str], list[str]]:
    """English and German sentences of a part of Multi30k."""
    paths = [Path(folder) / f"{part}.{language}.gz" for language in ("en", "de")]
    for path in paths:
        if not path.exists():
            raise SystemExit(f"{path} is missing: get it from data/task1/raw of https://github.com/multi30k/dataset")
    english, german = (gzip.decompress(path.read_bytes()).decode().splitlines() for path in paths)
    return english, german


def digits(part: str) -> tuple[list[str], list[str]]:
    """A language made up for a first try: four to eight digits, in German words, from the last one to the first."""
    rng = np.random.default_rng(PARTS.index(part))
    rows = [rng.integers(0, 10, rng.integers(4, 9)) for _ in range(5_000 if part == "train" else 200)]
    return [" ".join(map(str, row)) for row in rows], [" ".join(DIGITS[digit] for digit in row[::-1]) for row in rows]


def padded(sentences: Sequence[list[int]], places: int) -> Any:
    """An array [sentences, places]; what is too long is cut off."""
    rows = np.full((len(sentences), places), PAD, np.int32)
    for row, sentence in zip(rows, sentences, strict=True):
        kept = [*sentence[: places - 1], END]
        row[: len(kept)] = kept
    return rows


@dataclass(frozen=True)
class Translation:
    """A Transformer, trained by Adam: the pure functions for ``JaxTask``.

    Attributes:
        folder: of Multi30k; None for the made-up language.
        steps: of the study. After the last one the test set is scored, too.
        updates: a step of the study has so many.
        width: of the model; ``layers`` of encoder and decoder each, ``heads`` of attention.
        batch: pairs of sentences in a minibatch, drawn with replacement.
        vocabulary: pieces of words, of both languages together.
        longest: pairs with more pieces are not trained on.
        warmup: updates in which the learning rate rises from 0 to its value.
    """

    folder: str | None = None
    steps: int = 20
    updates: int = 200
    width: int = 128
    layers: int = 2
    heads: int = 4
    batch: int = 64
    vocabulary: int = 4000
    longest: int = 32
    warmup: int = 200

    @property
    def corpus(self) -> Corpus:
        """The texts."""
        return corpus(self.folder, self.vocabulary if self.folder else 80, self.longest)

    @property
    def data(self) -> dict[str, Any]:
        """What is put on the device."""
        return {"train": self.corpus.train, "english": self.corpus.english}

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Everything of Adam but the learning rate, which changes while training."""
        return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(b2=0.98))

    def init(self, config: Any, key: Any, data: Any) -> dict[str, Any]:
        """Fresh weights, normal with these standard deviations; those of layers are stacked along their first axis."""
        d, n, heads = self.width, self.layers, (self.heads, self.width // self.heads)
        attention = {name: jnp.full((n, d, *heads), d**-0.5) for name in ("query", "key", "value")}
        attention |= {"scale": jnp.zeros((n, d)), "out": jnp.full((n, *heads, d), d**-0.5)}
        hidden = {"up": jnp.full((n, d, 4 * d), d**-0.5), "down": jnp.full((n, 4 * d, d), (4 * d) ** -0.5)}
        hidden |= {"scale": jnp.zeros((n, d))}
        spreads = {
            "pieces": jnp.full((self.corpus.pieces.get_piece_size(), d), d**-0.5),
            "encoder": {"self": attention, "hidden": hidden}, "english": {"scale": jnp.zeros(d)},
            "decoder": {"self": attention, "english": attention, "hidden": hidden}, "german": {"scale": jnp.zeros(d)},
        }  # fmt: skip
        spread, tree = ravel_pytree(spreads)
        weights = tree(spread * jax.random.normal(key, spread.shape))
        return {"weights": weights, "adam": self.optimizer.init(weights), "updates": jnp.zeros((), jnp.int32)}

    def step(self, state: dict[str, Any], config: Any, key: Any, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """So many updates; then all sentences of the validation set are translated, and scored on the host.

        Returns:
            the state; ``bleu`` of the validation set, in percent; ``test_bleu``, which nothing decides by, NaN before
            the last step; ``loss``, the mean of the training loss over this step, in nats a piece.
        """

        def update(state: dict[str, Any], key: Any) -> tuple[dict[str, Any], Any]:
            which, mask = jax.random.split(key)
            rows = jax.random.randint(which, (self.batch,), 0, len(data["train"][0]))
            english, german = (part[rows] for part in data["train"])
            value, slope = jax.value_and_grad(loss)(state["weights"], english, german, config, mask)
            change, adam = self.optimizer.update(slope, state["adam"])
            rate = config["lr"] * jnp.minimum(1, (state["updates"] + 1) / self.warmup)
            weights = jax.tree.map(lambda w, c: w - rate * c, state["weights"], change)
            return {"weights": weights, "adam": adam, "updates": state["updates"] + 1}, value

        state, losses = jax.lax.scan(update, state, jax.random.split(key, self.updates))
        german = translate(state["weights"], data["english"])
        kinds = (jax.ShapeDtypeStruct((), jnp.float32),) * 2
        bleu, test = jax.pure_callback(self.score, kinds, german, state["updates"], vmap_method="broadcast_all")
        return state, {"bleu": bleu, "test_bleu": test, "loss": losses.mean()}

    def score(self, german: Any, updates: Any) -> tuple[Any, Any]:
        """BLEU [...] of translations [..., sentences, places], on validation set and test set; runs on the host."""
        known = self.corpus
        ended = np.asarray(updates) >= self.steps * self.updates
        bleu, test = np.full((2, ended.size), np.nan, np.float32)
        for member, rows in enumerate(np.asarray(german).reshape(ended.size, -1, german.shape[-1])):
            text = known.pieces.decode(rows.tolist())
            bleu[member] = known.validation.corpus_score(text[: known.first], None).score
            if ended.flat[member]:
                test[member] = known.test.corpus_score(text[known.first :], None).score
        return bleu.reshape(ended.shape), test.reshape(ended.shape)


# -- the model: pieces are numbers [n, t]; activations x are [n, t, width] ---------------------------------------------


def dropout(rates: Any, key: Any, number: Any) -> Callable[[str, Any], Any]:
    """A function (which rate, x) -> x with some values zero; without rates, x. Masks are drawn with 16 bits a value."""
    if rates is None:
        return lambda kind, x: x
    keys = map(partial(jax.random.fold_in, jax.random.fold_in(key, number)), count())

    def drop(kind: str, x: Any) -> Any:
        rate = rates[f"{kind}_dropout"]
        kept = jax.random.bits(next(keys), x.shape, jnp.uint16) >= (rate * 2**16).astype(jnp.uint16)
        return x * kept * (1 / (1 - rate)).astype(x.dtype)

    return drop


def loss(weights: Any, english: Any, german: Any, rates: Any, key: Any) -> Any:
    """Cross entropy with label smoothing, in nats, mean over the pieces."""
    keys = jax.random.split(key)
    before = jnp.pad(german[:, :-1], ((0, 0), (1, 0)), constant_values=BEGIN)
    logits, _ = decode(weights, before, 0, encode(weights, english, rates, keys[0]), None, rates, keys[1])
    goal = optax.smooth_labels(jax.nn.one_hot(german, logits.shape[-1]), 0.1)
    return optax.softmax_cross_entropy(logits, goal).mean(where=german != PAD)


def translate(weights: Any, english: Any) -> Any:
    """Greedily, piece by piece, all sentences at once."""
    known = encode(weights, english)

    def write(carry: Any, place: Any) -> Any:
        last, past = carry
        logits, past = decode(weights, last[:, None], place, known, past)
        now = jnp.where((last == END) | (last == PAD), PAD, logits[:, 0].argmax(-1))
        return (now, past), now

    begin = jnp.full(len(english), BEGIN), jax.tree.map(jnp.zeros_like, known[0])
    return jax.lax.scan(write, begin, jnp.arange(english.shape[1]))[1].T


def encode(weights: Any, english: Any, rates: Any = None, key: Any = None) -> tuple[Any, Any]:
    """What the decoder attends to: keys and values in each of its layers, and where there are pieces [n, 1, 1, t]."""
    seen = (english != PAD)[:, None, None]
    layers = len(weights["encoder"]["self"]["out"])

    def layer(x: Any, given: Any) -> Any:
        number, parts = given
        drop = dropout(rates, key, number)
        h = norm(x, parts["self"])
        x += attend(parts["self"], h, remember(parts["self"], h), seen, drop)
        return x + think(parts["hidden"], x, drop), None

    x = dropout(rates, key, layers)("residual", embed(weights, english, 0))
    x, _ = jax.lax.scan(layer, x, (jnp.arange(layers), weights["encoder"]))
    return jax.vmap(remember, (0, None))(weights["decoder"]["english"], norm(x, weights["english"])), seen


def decode(
    weights: Any, german: Any, place: Any, known: tuple[Any, Any], past: Any, rates: Any = None, key: Any = None
) -> tuple[Any, Any]:
    """Logits [n, t, vocabulary] of what follows each of the pieces.

    Args:
        place: of the first piece.
        known: from ``encode``.
        past: keys and values of the pieces before, in each layer; None where ``german`` is whole sentences.

    Returns:
        the logits, and ``past`` with these pieces in it.
    """
    layers = len(weights["decoder"]["self"]["out"])

    def layer(x: Any, given: Any) -> Any:
        number, parts, found, past = given
        drop = dropout(rates, key, number)
        h = norm(x, parts["self"])
        now = remember(parts["self"], h)
        if past is not None:
            now = jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, place, 2), past, now)
        seen = jnp.arange(now[0].shape[2]) <= place + jnp.arange(german.shape[1])[:, None]
        x += attend(parts["self"], h, now, seen, drop)
        x += attend(parts["english"], norm(x, parts["english"]), found, known[1], drop)
        return x + think(parts["hidden"], x, drop), now

    x = dropout(rates, key, layers)("residual", embed(weights, german, place))
    x, past = jax.lax.scan(layer, x, (jnp.arange(layers), weights["decoder"], known[0], past))
    logits = norm(x, weights["german"]) @ weights["pieces"].T.astype(x.dtype)
    return logits.astype(jnp.float32), past


def embed(weights: Any, pieces: Any, place: Any) -> Any:
    """Pieces [n, t], the first of which stands at ``place``, as vectors, with sines and cosines of their places."""
    width = weights["pieces"].shape[1]
    angles = (place + jnp.arange(pieces.shape[1]))[:, None] / 10_000 ** (jnp.arange(0, width, 2) / width)
    where = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
    return (weights["pieces"][pieces] * width**0.5 + where).astype(
        jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    )


def norm(x: Any, part: Any) -> Any:
    """Vectors of mean square 1, scaled (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    x32 = x.astype(jnp.float32)
    return (x32 * jax.lax.rsqrt((x32**2).mean(-1, keepdims=True) + 1e-6) * (1 + part["scale"])).astype(x.dtype)


def remember(part: Any, x: Any) -> tuple[Any, Any]:
    """Keys and values [n, heads, t, width of a head]."""
    key, value = (jnp.einsum("ntd,dhe->nhte", x, part[name].astype(x.dtype)) for name in ("key", "value"))
    return key, value


def attend(part: Any, x: Any, remembered: tuple[Any, Any], seen: Any, drop: Any) -> Any:
    """What x [n, t, width] finds where it may look."""
    key, value = remembered
    query = jnp.einsum("ntd,dhe->nhte", x, part["query"].astype(x.dtype)) * key.shape[-1] ** -0.5
    scores = jnp.einsum("nhte,nhse->nhts", query, key).astype(jnp.float32)
    chances = jax.nn.softmax(jnp.where(seen, scores, -1e9)).astype(x.dtype)
    found = jnp.einsum("nhts,nhse->nhte", drop("attention", chances), value)
    return drop("residual", jnp.einsum("nhte,hed->ntd", found, part["out"].astype(x.dtype)))


def think(part: Any, x: Any, drop: Any) -> Any:
    """The hidden layer of every place by itself."""
    hidden = jax.nn.relu(norm(x, part) @ part["up"].astype(x.dtype))
    return drop("residual", drop("relu", hidden) @ part["down"].astype(x.dtype))


SPACE = ts.Space(
    {
        "lr": ts.Float(3e-5, 3e-2, log=True),
        "attention_dropout": ts.Float(0.0, 0.5),
        "residual_dropout": ts.Float(0.0, 0.5),
        "relu_dropout": ts.Float(0.0, 0.5),
    }
)


@cache
def task(pure: Translation, members: int) -> JaxTask:
    """The same for all studies of a process, which compile it once."""
    return JaxTask(pure, members=members, chunk=members, save_every_jobs=5)


def problem(given: argparse.Namespace) -> Problem:
    """What the options say."""
    return Problem(
        name="Multi30k, English to German" if given.data else "digits to German",
        task=task(Translation(given.data, given.steps, given.updates, given.width), given.population),
        space=SPACE,
        goal=ts.Goal("bleu", maximise=True),
        report="test_bleu",
        population=given.population,
        steps=given.steps,
        ready=given.ready,
    )


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = parser(__doc__, population=16, steps=20, ready=2)
    made.add_argument("--data", help="the folder of Multi30k; by default digits are translated")
    made.add_argument("--updates", type=int, default=200, help="of the weights in a step")
    made.add_argument("--width", type=int, default=128, help="of the model, a multiple of 8")
    return made


if __name__ == "__main__":
    given = arguments().parse_args()
    run(problem(given), given)
