"""Population based training of generative adversarial networks: schedules of the two learning rates.

Generator and discriminator are those of DCGAN (Radford, Metz and Chintala 2016, arXiv:1511.06434), with fewer channels,
and with layer normalisation in the discriminator, so that what it thinks of an image depends on no other image. What
decides is how clear and how diverse the generated images look to a classifier of the same data: the Inception score
(Salimans et al. 2016, arXiv:1606.03498), with a classifier trained here in the place of Inception. No loss of the two
networks says it. A second classifier, trained on the other half of the images, gives ``test_score``, which decides
nothing: it shows whether the first one was merely deceived.

    pip install 'tunesmith[gan]'
    python examples/gan.py                              # digits of 8 x 8 pixels: a few minutes on a laptop
    python examples/gan.py --data fashion-mnist         # this and the next need a GPU
    python examples/gan.py --data cifar10 --data-dir folder_of_train_test_jpeg.npz

``--method`` compares: ``pbt``; ``weights`` and ``hyperparameters``, which copy only the one or the other; ``random``
search with as many members and steps. ``--exploit tournament`` is another rule of whom to copy. ``--figures`` adds
images of the best member to the pictures.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import optax
from ablations import Problem, parser, run
from jax import numpy as jnp

import tunesmith as ts
from tunesmith.execution import Checkpoints, JaxTask
from tunesmith.schedulers import Perturb
from tunesmith.workloads import images

ADAM = optax.scale_by_adam(b1=0.5)  # without the learning rate, which changes while training


@dataclass(frozen=True)
class Gan:
    """Two networks that train against each other: the pure functions for ``JaxTask``.

    Attributes:
        images: ``digits``, ``fashion-mnist`` or ``cifar10``.
        data_dir: where the data lie; see ``load``.
        updates: of each network, in a step of the study.
        width: channels of the widest images inside; half the size, twice the channels.
        batch: real images, and generated ones, in an update.
        noise: numbers that an image is made from.
    """

    images: str = "digits"
    data_dir: str | None = None
    updates: int = 100
    width: int = 32
    batch: int = 64
    noise: int = 64

    @cached_property
    def data(self) -> dict[str, Any]:
        """Images uint8 [n, size, size, channels], and the weights of the two classifiers."""
        return prepared(self.images, self.data_dir)

    def init(self, config: Any, key: Any, data: Any) -> dict[str, Any]:
        """Fresh networks."""
        size, channels = data["images"].shape[2:]
        first, second = jax.random.split(key)
        generator = fresh_generator(first, self.noise, self.width, size, channels)
        discriminator = fresh_critic(second, size, channels, self.width, 1)
        return {
            "generator": generator, "generator_adam": ADAM.init(generator),
            "discriminator": discriminator, "discriminator_adam": ADAM.init(discriminator),
        }  # fmt: skip

    def step(self, state: dict[str, Any], config: Any, key: Any, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """So many updates, then an evaluation.

        Returns:
            the state; as ``score`` (between 1 and the number of classes) what the first classifier thinks of 2,000
            generated images, as ``test_score`` what the second one does; and the means of both losses, in nats.
        """
        train, look = jax.random.split(key)
        keys = jax.random.split(train, self.updates)
        state, losses = jax.lax.scan(lambda state, key: self.update(state, config, key, data["images"]), state, keys)

        def opinions(key: Any) -> Any:
            noise = jax.random.normal(key, (250, self.noise))
            return judged(data["classifiers"], generate(state["generator"], noise))

        found = jax.lax.map(opinions, jax.random.split(look, 8))  # [8, 2, 250, classes]
        score, test_score = jax.vmap(inception_score)(jnp.concatenate(found, 1))
        metrics = {name: values.mean() for name, values in losses.items()}
        return state, {"score": score, "test_score": test_score} | metrics

    def update(self, state: dict[str, Any], config: Any, key: Any, real: Any) -> tuple[dict[str, Any], Any]:
        """One update of the discriminator, then one of the generator, with the same generated images."""
        pick, make = jax.random.split(key)
        batch = scaled(real[jax.random.randint(pick, (self.batch,), 0, len(real))])
        noise = jax.random.normal(make, (self.batch, self.noise))
        fake, back = jax.vjp(lambda weights: generate(weights, noise), state["generator"])

        def wrong(weights: Any) -> Any:
            logits = criticise(weights, jnp.concatenate([batch, fake]))[:, 0]
            return jax.nn.softplus(-logits[: self.batch]).mean() + jax.nn.softplus(logits[self.batch :]).mean()

        def seen_through(fake: Any) -> Any:  # the loss that does not saturate
            return jax.nn.softplus(-criticise(after["discriminator"], fake)).mean()

        loss, slope = jax.value_and_grad(wrong)(state["discriminator"])
        after = state | descended(state, "discriminator", slope, config["discriminator_lr"])
        generator_loss, slope = jax.value_and_grad(seen_through)(fake)
        after = after | descended(state, "generator", back(slope)[0], config["generator_lr"])
        return after, {"discriminator_loss": loss, "generator_loss": generator_loss}


def descended(state: dict[str, Any], name: str, slope: Any, lr: Any) -> dict[str, Any]:
    """A network and its optimizer, after an update of Adam."""
    change, adam = ADAM.update(slope, state[f"{name}_adam"])
    return {name: jax.tree.map(lambda w, c: w - lr * c, state[name], change), f"{name}_adam": adam}


# -- networks: convolutions of 4 x 4 with stride 2, as products of matrices -------------------------------------------


def layer(key: Any, inputs: int, outputs: int, channels: int) -> dict[str, Any]:
    """Weights of a product of matrices; its scale and shift are those of the channels."""
    weights = jax.random.normal(key, (inputs, outputs)) * (2 / inputs) ** 0.5
    return {"w": weights, "scale": jnp.ones(channels), "shift": jnp.zeros(channels)}


def fresh_generator(key: Any, noise: int, width: int, size: int, channels: int) -> list[Any]:
    """From noise to the smallest size, and then each image twice as large, with half the channels."""
    through = [*reversed(widths(size, width)), channels]
    keys = jax.random.split(key, len(through))
    first = layer(keys[0], noise, smallest(size) ** 2 * through[0], through[0])
    return [first, *(layer(k, 4 * a, 4 * b, b) for k, (a, b) in zip(keys[1:], pairwise(through), strict=True))]


def fresh_critic(key: Any, size: int, channels: int, width: int, outputs: int) -> list[Any]:
    """The way back; a discriminator has one output, a classifier as many as there are classes."""
    through = [channels, *widths(size, width)]
    last, *keys = jax.random.split(key, len(through))
    hidden = [layer(k, 16 * a, b, b) for k, (a, b) in zip(keys, pairwise(through), strict=True)]
    return [*hidden, layer(last, smallest(size) ** 2 * through[-1], outputs, outputs)]


def smallest(size: int) -> int:
    """The size that images grow from: 4 x 4, those of 8 x 8 from 2 x 2."""
    return min(4, size // 4)


def widths(size: int, width: int) -> list[int]:
    """The channels inside, from the largest size to the smallest."""
    return [width * 2**i for i in range((size // smallest(size)).bit_length() - 1)]


def generate(layers: list[Any], noise: Any) -> Any:
    """Images [n, size, size, channels] in [-1, 1] of noise [n, ...]; normalised over the batch, as in DCGAN."""
    first, *hidden, last = layers
    x = product(first, noise.astype(kind()))
    side = round((x.shape[1] / len(first["shift"])) ** 0.5)
    x = x.reshape(len(noise), side, side, -1)
    x = jax.nn.relu(normalised(first, x, (0, 1, 2)))
    for one in hidden:
        x = jax.nn.relu(normalised(one, up(one, x), (0, 1, 2)))
    return jnp.tanh(up(last, x).astype(jnp.float32) + last["shift"])


def criticise(layers: list[Any], x: Any) -> Any:
    """Logits [n, outputs] of images [n, size, size, channels]; all but the first layer are normalised."""
    first, *hidden, last = layers
    x = down(first, x.astype(kind())) + first["shift"].astype(kind())
    for one in hidden:
        x = normalised(one, down(one, jax.nn.leaky_relu(x, 0.2)), (1, 2, 3))
    x = jax.nn.leaky_relu(x, 0.2).reshape(len(x), -1)
    return product(last, x).astype(jnp.float32) + last["shift"]


def kind() -> Any:
    """What is computed in; weights are float32 in any case."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def product(one: dict[str, Any], x: Any) -> Any:
    return x @ one["w"].astype(x.dtype)


def normalised(one: dict[str, Any], x: Any, axes: tuple[int, ...]) -> Any:
    """Mean 0 and variance 1 over some axes, then what the layer makes of it."""
    x32 = x.astype(jnp.float32)
    x32 = (x32 - x32.mean(axes, keepdims=True)) * jax.lax.rsqrt(x32.var(axes, keepdims=True) + 1e-5)
    return (x32 * one["scale"] + one["shift"]).astype(x.dtype)


def down(one: dict[str, Any], x: Any) -> Any:
    """A convolution of 4 x 4 with stride 2: [n, 2 h, 2 h, c] to [n, h, h, outputs]."""
    n, size, _, channels = x.shape
    half = size // 2 + 1
    x = padded(x).reshape(n, half, 2, half, 2, channels).swapaxes(2, 3)
    return product(one, windows(x.reshape(n, half, half, 4 * channels)))


def up(one: dict[str, Any], x: Any) -> Any:
    """A transposed convolution of 4 x 4 with stride 2: [n, h, h, c] to [n, 2 h, 2 h, outputs]."""
    n, size = x.shape[0], x.shape[1] + 1
    x = product(one, windows(padded(x))).reshape(n, size, size, 2, 2, -1).swapaxes(2, 3)
    return x.reshape(n, 2 * size, 2 * size, -1)[:, 1:-1, 1:-1]


def padded(x: Any) -> Any:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def windows(x: Any) -> Any:
    """All windows of 2 x 2: [n, h + 1, h + 1, c] to [n, h, h, 4 c]."""
    h = x.shape[1] - 1
    return jnp.concatenate([x[:, i : i + h, j : j + h] for i in (0, 1) for j in (0, 1)], -1)


# -- what decides -----------------------------------------------------------------------------------------------------


def inception_score(logits: Any) -> Any:
    """exp E KL(p(y|x) || p(y)) of logits [n, classes]: from 1 to the number of classes."""
    chances = jax.nn.log_softmax(logits)
    together = jax.nn.logsumexp(chances, 0) - jnp.log(len(chances))
    return jnp.exp((jnp.exp(chances) * (chances - together)).sum(-1).mean())


def judged(classifiers: Any, x: Any) -> Any:
    """Logits [2, n, classes] of images [n, ...] by both classifiers."""
    return jax.vmap(criticise, (0, None))(classifiers, x)


@jax.jit
def taught(x: Any, y: Any) -> list[Any]:
    """The weights of a classifier of these images, after as many updates as there are images, 4,000 at most."""
    updates = min(4000, len(x))
    adam = optax.adamw(optax.cosine_decay_schedule(2e-3, updates), weight_decay=0.01)

    def loss(weights: Any, rows: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(criticise(weights, scaled(x[rows])), y[rows]).mean()

    def update(_: Any, carry: Any) -> Any:
        key, weights, state = carry
        key, draw = jax.random.split(key)
        slope = jax.grad(loss)(weights, jax.random.randint(draw, (128,), 0, len(x)))
        change, state = adam.update(slope, state, weights)
        return key, optax.apply_updates(weights, change), state

    weights = fresh_critic(jax.random.key(0), x.shape[2], x.shape[3], 32, 10)
    return jax.lax.fori_loop(0, updates, update, (jax.random.key(1), weights, adam.init(weights)))[1]


@cache
def prepared(name: str, data_dir: str | None) -> dict[str, Any]:
    """What ``Gan.data`` says, made once in a process. It prints what the classifiers think of real images."""
    (x, y), (test, labels) = load(name, data_dir)
    half = len(x) // 2
    halves = jnp.asarray(x[: 2 * half]).reshape(2, half, *x.shape[1:]), jnp.asarray(y[: 2 * half]).reshape(2, half)
    classifiers = jax.vmap(taught)(*halves)
    logits = jax.jit(judged)(classifiers, scaled(jnp.asarray(test[:2000])))
    right = [f"{share:.3f}" for share in (logits.argmax(-1) == labels[:2000]).mean(1)]
    scores = [f"{score:.4g}" for score in jax.vmap(inception_score)(logits)]
    print(f"real images: score {scores[0]}, test_score {scores[1]}; the classifiers know {' and '.join(right)} of them")
    return {"images": jnp.asarray(x), "classifiers": classifiers}


# -- data -------------------------------------------------------------------------------------------------------------


def scaled(x: Any) -> Any:
    """Images in [-1, 1], from uint8."""
    return x / 127.5 - 1.0


def load(name: str, data_dir: str | None) -> list[tuple[Any, Any]]:
    """Training and test images uint8 [n, size, size, channels] and labels [n], in random order.

    Args:
        name: see ``Gan``.
        data_dir: for ``fashion-mnist`` see ``tunesmith.workloads.images``; for ``cifar10`` the folder of
            ``train_test_jpeg.npz``, an archive of the arrays ``train_jpeg`` (uint8: all JPEG files, one after the
            other), ``train_offset`` (where each begins, and the end) and ``train_label``, and of the same for ``test``.
    """
    if name == "cifar10":
        parts = [cifar10(data_dir, part) for part in ("train", "test")]
    else:
        data = images.load(name, data_dir)
        parts = [(part.images, part.labels) for part in (data.train, data.test)]
        size = round(data.pixels**0.5)
        margin = -size % 8 // 2  # 28 x 28 becomes 32 x 32
        border = ((0, 0), (margin, margin), (margin, margin), (0, 0))
        parts = [(np.pad(x.reshape(-1, size, size, 1), border), y) for x, y in parts]
    orders = [np.random.default_rng(0).permutation(len(y)) for _, y in parts]
    return [(x[order], y[order].astype(np.int32)) for (x, y), order in zip(parts, orders, strict=True)]


def cifar10(data_dir: str | None, part: str) -> tuple[Any, Any]:
    """One part of CIFAR-10 (Krizhevsky 2009), decoded."""
    from PIL import Image

    path = Path(data_dir or ".") / "train_test_jpeg.npz"
    if not path.is_file():
        raise SystemExit(
            f"CIFAR-10 is missing: there is no {path}. Give its folder with --data-dir (see load in gan.py)"
        )
    with np.load(path) as found:
        jpeg, offset, label = (found[f"{part}_{what}"] for what in ("jpeg", "offset", "label"))
    files = (io.BytesIO(jpeg[a:b].tobytes()) for a, b in pairwise(offset))
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]), label


SPACE = ts.Space(
    {
        "generator_lr": ts.Float(3e-5, 3e-2, log=True),
        "discriminator_lr": ts.Float(3e-5, 3e-2, log=True),
    }
)


def problem(given: argparse.Namespace) -> Problem:
    """What the options say."""
    gan = Gan(given.data, given.data_dir, given.updates, given.width)
    chunk = 1 if jax.default_backend() == "cpu" else given.population  # processors gain nothing by larger products
    return Problem(
        name=f"GAN, {given.data}",
        task=JaxTask(gan, members=given.population, chunk=chunk, save_every_jobs=10),
        space=SPACE,
        goal=ts.Goal("score", maximise=True),
        report="test_score",
        population=given.population,
        steps=given.steps,
        ready=given.ready,
        explore=Perturb(2.0),
    )


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = parser(__doc__, population=16, steps=40, ready=4)
    made.add_argument("--data", choices=(*images.DATASETS, "cifar10"), default="digits")
    made.add_argument("--data-dir", help="where the data lie; CIFAR-10 has no default")
    made.add_argument("--updates", type=int, default=100, help="of each network, in a step")
    made.add_argument("--width", type=int, default=32, help="channels, see Gan")
    return made


def draw(task: JaxTask, study: ts.Study, states: str, path: Path) -> None:
    """64 images of the best member, as it was when it was last saved."""
    from matplotlib.image import imsave

    best: Any = study.best
    saved = best.checkpoints[-1]
    arrays: Any = Checkpoints(states).load(saved.where, saved.digest)
    layout = task.layout(task.group(best.config))
    generator = jax.tree.unflatten(layout.tree, [arrays["state"][name] for name in layout.names])["generator"]
    x = generate(generator, jax.random.normal(jax.random.key(0), (64, task.pure.noise)))
    rows = x.reshape(8, 8, *x.shape[1:]).swapaxes(1, 2)
    sheet = np.asarray(rows.reshape(8 * x.shape[1], 8 * x.shape[2], -1)) / 2 + 0.5
    imsave(path, sheet.repeat(4, 0).repeat(4, 1).squeeze(), cmap="gray")


if __name__ == "__main__":
    given = arguments().parse_args()
    made = problem(given)
    with TemporaryDirectory() as temporary:
        states = f"{given.store}.states" if given.store else temporary
        study = run(made, given, checkpoints=states)
        if given.figures:
            draw(made.task, study, states, given.figures / "images.png")
