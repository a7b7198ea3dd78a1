"""Population based training in reinforcement learning: schedules of learning rate, entropy cost and discount.

Every member is an actor-critic agent (PPO: Schulman et al. 2017, arXiv:1707.06347) with environments of its own.
Agents, environments and training are one program on one device: a population of 32 takes little longer than one agent.

    pip install 'tunesmith[rl]'
    python examples/reinforcement_learning.py                                   # CartPole: a minute or two on a laptop
    python examples/reinforcement_learning.py --env Breakout-MinAtar --steps 50 --updates 40 --width 128 --population 64

``--method`` compares: ``pbt``; ``weights`` and ``hyperparameters``, which copy only the one or the other; ``random``
search with as many agents and steps. ``--exploit`` is whom to copy.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import gymnax
import jax
import optax
from ablations import Problem, parser, run
from jax import numpy as jnp

import tunesmith as ts
from tunesmith.execution import JaxTask


class Moment(NamedTuple):
    """A step of an environment: what was seen and done, and what came of it."""

    seen: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    ended: Any


@dataclass(frozen=True)
class ActorCritic:
    """PPO on one of gymnax's environments: the pure functions for ``JaxTask``.

    Attributes:
        env: a name of ``gymnax.registered_envs``.
        environments: of one agent. Half of them select, the other half only report.
        unroll: steps of an environment between two updates.
        updates: a step of the study has so many rollouts.
        epochs, minibatches: passes over a rollout, and parts of a pass.
        width: of the two hidden layers.
        episodes: the reward of an agent is the mean of so many last episodes of each of its environments.
    """

    env: str = "CartPole-v1"
    environments: int = 16
    unroll: int = 64
    updates: int = 10
    epochs: int = 4
    minibatches: int = 4
    width: int = 64
    episodes: int = 4

    @cached_property
    def game(self) -> tuple[Any, Any]:
        """The environment and its parameters."""
        with jax.ensure_compile_time_eval():  # what it holds belongs to no program
            made: tuple[Any, Any] = gymnax.make(self.env)
        return made

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Everything of Adam but the learning rate, which changes while training."""
        return optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam(eps=1e-5))

    def init(self, config: Any, key: Any) -> dict[str, Any]:
        """A fresh agent in fresh environments."""
        env, parameters = self.game
        keys = jax.random.split(key, 4)
        seen, games = jax.vmap(env.reset, (0, None))(jax.random.split(keys[0], self.environments), parameters)
        inputs = seen.reshape(self.environments, -1).shape[1]
        weights = [
            layer(keys[1], inputs, self.width),
            layer(keys[2], self.width, self.width),
            layer(keys[3], self.width, env.num_actions + 1, 0.01),
        ]
        return {
            "weights": weights, "adam": self.optimizer.init(weights), "seen": seen, "games": games,
            "sums": jnp.zeros(self.environments), "returns": jnp.full((self.environments, self.episodes), jnp.nan),
        }  # fmt: skip

    def step(self, state: dict[str, Any], config: Any, key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """So many rollouts, each followed by updates.

        Returns:
            the state, and as ``reward`` the mean return of the last episodes (while none has ended: so far) in the
            first half of the environments; the other half gives ``test_reward``, which nothing decides by.
        """
        keys = jax.random.split(key, self.updates)
        state, entropies = jax.lax.scan(lambda state, key: self.update(state, config, key), state, keys)
        half = self.environments // 2
        metrics = {"reward": slice(None, half), "test_reward": slice(half, None)}
        return state, {name: last(state, part) for name, part in metrics.items()} | {"entropy": entropies.mean()}

    def update(self, state: dict[str, Any], config: Any, key: Any) -> tuple[dict[str, Any], Any]:
        """A rollout and what is learned from it."""
        play, shuffle = jax.random.split(key)
        state, moments = jax.lax.scan(
            lambda state, key: self.act(state, key), state, jax.random.split(play, self.unroll)
        )
        _, value = forward(state["weights"], state["seen"])
        advantages = gae(moments, value, 1 - config["myopia"])
        batch = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (moments, advantages, advantages + moments.value))

        def learn(carry: Any, part: Any) -> Any:
            weights, adam = carry
            (_, entropy), slope = jax.value_and_grad(ppo, has_aux=True)(weights, *part, config["entropy_cost"])
            change, adam = self.optimizer.update(slope, adam)
            return (jax.tree.map(lambda w, c: w - config["lr"] * c, weights, change), adam), entropy

        def epoch(carry: Any, key: Any) -> Any:
            order = jax.random.permutation(key, self.unroll * self.environments).reshape(self.minibatches, -1)
            return jax.lax.scan(learn, carry, jax.tree.map(lambda a: a[order], batch))

        keys = jax.random.split(shuffle, self.epochs)
        (weights, adam), entropies = jax.lax.scan(epoch, (state["weights"], state["adam"]), keys)
        return {**state, "weights": weights, "adam": adam}, entropies.mean()

    def act(self, state: dict[str, Any], key: Any) -> tuple[dict[str, Any], Moment]:
        """One action in each environment."""
        env, parameters = self.game
        choose, move = jax.random.split(key)
        logits, value = forward(state["weights"], state["seen"])
        action = jax.random.categorical(choose, logits)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], 1)[:, 0]
        seen, games, reward, terminated, truncated, _ = jax.vmap(env.step, (0, 0, 0, None))(
            jax.random.split(move, self.environments), state["games"], action, parameters
        )
        ended = terminated | truncated
        sums = state["sums"] + reward
        returns = jnp.where(ended[:, None], jnp.column_stack([state["returns"][:, 1:], sums]), state["returns"])
        after = {**state, "seen": seen, "games": games, "sums": jnp.where(ended, 0.0, sums), "returns": returns}
        return after, Moment(state["seen"], action, log_prob, value, reward, ended)


def last(state: dict[str, Any], part: slice) -> Any:
    """The mean return of the last episodes in some of the environments."""
    returns = state["returns"][part]
    ended = ~jnp.isnan(returns)
    mean = jnp.where(ended, returns, 0).sum() / jnp.maximum(ended.sum(), 1)
    return jnp.where(ended.any(), mean, state["sums"][part].mean())


def layer(key: Any, inputs: int, outputs: int, scale: float = 2**0.5) -> dict[str, Any]:
    """Weights of a dense layer, of about this gain."""
    return {"w": jax.random.normal(key, (inputs, outputs)) * scale / inputs**0.5, "b": jnp.zeros(outputs)}


def forward(weights: Any, seen: Any) -> tuple[Any, Any]:
    """Logits of the actions [n, actions], and the value [n], of what is seen [n, ...]."""
    hidden = seen.reshape(len(seen), -1)
    for one in weights[:-1]:
        hidden = jnp.tanh(hidden @ one["w"] + one["b"])
    out = hidden @ weights[-1]["w"] + weights[-1]["b"]
    return out[:, :-1], out[:, -1]


def gae(moments: Moment, value: Any, discount: Any, decay: float = 0.95) -> Any:
    """Generalised advantage estimates [unroll, environments] (Schulman et al. 2016, arXiv:1506.02438)."""

    def back(carry: Any, moment: Moment) -> Any:
        advantage, value = carry
        goes_on = 1.0 - moment.ended
        surprise = moment.reward + discount * value * goes_on - moment.value
        advantage = surprise + discount * decay * goes_on * advantage
        return (advantage, moment.value), advantage

    return jax.lax.scan(back, (jnp.zeros_like(value), value), moments, reverse=True)[1]


def ppo(weights: Any, moments: Moment, advantages: Any, targets: Any, entropy_cost: Any, clip: float = 0.2) -> Any:
    """The loss of a minibatch (Schulman et al. 2017, equations 7 and 9), and the entropy of the policy in nats."""
    logits, value = forward(weights, moments.seen)
    log_probs = jax.nn.log_softmax(logits)
    ratio = jnp.exp(jnp.take_along_axis(log_probs, moments.action[:, None], 1)[:, 0] - moments.log_prob)
    gain = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy = jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - clip, 1 + clip) * gain).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return 0.25 * ((value - targets) ** 2).mean() - policy - entropy_cost * entropy, entropy


SPACE = ts.Space(
    {
        "lr": ts.Float(1e-5, 1e-2, log=True),
        "entropy_cost": ts.Float(1e-4, 1e-1, log=True),
        "myopia": ts.Float(1e-3, 1e-1, log=True),  # 1 less the discount
    }
)


def problem(given: argparse.Namespace) -> Problem:
    """What the options say."""
    return Problem(
        name=given.env,
        task=JaxTask(ActorCritic(given.env, updates=given.updates, width=given.width), members=given.population),
        space=SPACE,
        goal=ts.Goal("reward", maximise=True),
        report="test_reward",
        population=given.population,
        steps=given.steps,
        ready=given.ready,
    )


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = parser(__doc__, population=32, steps=40, ready=2)
    made.add_argument("--env", choices=gymnax.registered_envs, metavar="NAME", default="CartPole-v1", help="of gymnax")
    made.add_argument("--updates", type=int, default=10, help="rollouts in a step of the study")
    made.add_argument("--width", type=int, default=64, help="of the two hidden layers")
    return made


if __name__ == "__main__":
    given = arguments().parse_args()
    run(problem(given), given)
