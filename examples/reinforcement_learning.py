"""Population based training in reinforcement learning: schedules of learning rate, entropy cost and discount.

Every member is an actor-critic agent (PPO: Schulman et al. 2017, arXiv:1707.06347) with environments of its own.
Agents, environments and training are one program on one device: a population of 32 takes little longer than one agent.

    pip install 'tunesmith[rl]'
    python examples/reinforcement_learning.py                                   # CartPole: a minute or two on a laptop
    python examples/reinforcement_learning.py --env Breakout-MinAtar --steps 100 --population 64

``--method`` compares: ``pbt``; ``weights`` and ``hyperparameters``, which copy only the one or the other; ``random``
search with as many agents and steps.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import gymnax
import jax
import optax
from jax import numpy as jnp

import tunesmith as ts
from tunesmith.analysis.figures import plot_lineage, plot_schedule
from tunesmith.analysis.schedule import schedule
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
        environments: of one agent.
        unroll: steps of an environment between two updates.
        updates: a step of the study has so many rollouts.
        epochs, minibatches: passes over a rollout, and parts of a pass.
        width: of the two hidden layers.
        episodes: the reward of an agent is the mean of so many last episodes of each of its environments.
    """

    env: str = "CartPole-v1"
    environments: int = 8
    unroll: int = 64
    updates: int = 10
    epochs: int = 4
    minibatches: int = 4
    width: int = 64
    episodes: int = 4

    @cached_property
    def game(self) -> tuple[Any, Any]:
        """The environment and its parameters."""
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
            the state, and as ``reward`` the mean return of the last episodes (while none has ended: so far).
        """
        keys = jax.random.split(key, self.updates)
        state, entropies = jax.lax.scan(lambda state, key: self.update(state, config, key), state, keys)
        ended = ~jnp.isnan(state["returns"])
        last = jnp.where(ended, state["returns"], 0).sum() / jnp.maximum(ended.sum(), 1)
        return state, {"reward": jnp.where(ended.any(), last, state["sums"].mean()), "entropy": entropies.mean()}

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


def scheduler(method: str, population: int, ready: int, steps: int) -> ts.schedulers.Scheduler[Any]:
    """Who trains when."""
    if method == "random":
        return ts.schedulers.Full(steps)
    inherit = "both" if method == "pbt" else method
    return ts.schedulers.PBT(population=population, ready=ready, steps=steps, inherit=inherit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1", help="a name of gymnax")
    parser.add_argument("--method", choices=("pbt", "weights", "hyperparameters", "random"), default="pbt")
    parser.add_argument("--population", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--ready", type=int, default=2, help="steps between two decisions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", help="a file for the study; with it, a run that was stopped goes on")
    parser.add_argument("--figures", type=Path, help="a folder for the pictures")
    options = parser.parse_args()
    study = ts.tune(
        JaxTask(ActorCritic(options.env), members=options.population),
        SPACE,
        maximise="reward",
        sampler=ts.samplers.QMC(),
        scheduler=scheduler(options.method, options.population, options.ready, options.steps),
        trials=options.population if options.method == "random" else None,
        seed=options.seed,
        store=options.store,
    )
    print(f"{options.env}, {options.method}: reward {study.best.metrics['reward']:.1f} with {study.best.config}")
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
        plot_schedule(schedule(study), study).savefig(options.figures / "schedule.png")
        plot_lineage(study).savefig(options.figures / "lineage.png")


if __name__ == "__main__":
    main()
