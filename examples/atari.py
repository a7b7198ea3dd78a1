"""Population based training on an Atari game: a real simulator, and members in worker processes.

Every member is a PyTorch actor-critic (PPO: Schulman et al. 2017, arXiv:1707.06347) with emulators of its own, which
run in threads of its process. It sees the last four frames, 42 by 42 pixels each (or as ``--size`` says), and acts on
every fourth; actions are not sticky, and a game ends after five minutes at the latest. It learns from rewards clipped
to -1, 0 and 1; what is reported is the score.

    pip install 'tunesmith[atari]'
    python examples/atari.py --workers 16                            # Kung-Fu Master: 650,000 actions a member
    python examples/atari.py --workers 16 --game breakout --size 84 --steps 100

``--method`` compares: ``pbt``; ``weights`` and ``hyperparameters``, which copy only the one or the other; ``random``
search with as many members and steps. A worker uses its share of the cores, for the emulators and for the network.

A member that goes on in its worker goes on with its games; where it is loaded, in a fork or after a break, they begin
anew. So with other numbers of workers, or of cores, a study has other figures.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from ablations import Problem, parser, run
from ale_py.roms import get_all_rom_ids
from ale_py.vector_env import AtariVectorEnv
from torch import Tensor, nn

import tunesmith as ts
from tunesmith.execution import current_job
from tunesmith.integrations.torch import load_optimizer


@dataclass
class Agent:
    """A member of the population.

    Attributes:
        network: from frames to logits and a value.
        optimizer: of its weights.
        random: draws actions and minibatches.
        emulators: its games.
        seen: their last four frames [environments, 4, size, size].
        lives: left in each [environments].
        sums: score so far in each [environments].
        returns: scores of its last episodes, NaN where there were fewer [environments, episodes].
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    random: torch.Generator
    emulators: AtariVectorEnv
    seen: Tensor
    lives: np.ndarray
    sums: np.ndarray
    returns: np.ndarray


class Moments(NamedTuple):
    """Steps of the environments: what was seen and done, and what came of it; each [unroll, environments, ...]."""

    seen: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    reward: Tensor
    ended: Tensor


@dataclass(frozen=True)
class Atari:
    """PPO on an Atari game: training code in the library's own form, ``init``, ``step``, ``save`` and ``load``.

    Attributes:
        game: a name of ``ale_py.roms.get_all_rom_ids()``.
        updates: a step of the study has so many rollouts.
        environments: emulators of one member. Half of them select, the other half only report.
        unroll: actions in each between two updates.
        epochs, minibatches: passes over a rollout, and parts of a pass.
        episodes: the reward of a member is the mean of so many last episodes of each of its environments.
        size: width and height of what it sees.
        device: where the network is.
    """

    game: str = "kung_fu_master"
    updates: int = 16
    environments: int = 8
    unroll: int = 128
    epochs: int = 3
    minibatches: int = 4
    episodes: int = 4
    size: int = 42
    device: str = "cpu"

    def init(self, config: Any, rng: np.random.Generator) -> Agent:
        """A fresh agent in fresh games."""
        seed = int(rng.integers(2**31))
        emulators = AtariVectorEnv(
            self.game,
            self.environments,
            num_threads=min(torch.get_num_threads(), self.environments),
            max_num_frames_per_episode=18_000,
            img_height=self.size,
            img_width=self.size,
            reward_clipping=False,
            autoreset_mode="SameStep",
        )
        torch.manual_seed(seed)
        network = layers(int(emulators.single_action_space.n), self.size).to(self.device)
        frames, about = emulators.reset(seed=seed)
        return Agent(
            network=network,
            optimizer=torch.optim.Adam(network.parameters(), lr=config["lr"], eps=1e-5),
            random=torch.Generator().manual_seed(seed),
            emulators=emulators,
            seen=torch.tensor(frames),
            lives=about["lives"],
            sums=np.zeros(self.environments),
            returns=np.full((self.environments, self.episodes), np.nan),
        )

    def step(self, state: Agent, config: Any) -> tuple[Agent, dict[str, float]]:
        """So many rollouts, each followed by updates.

        Returns:
            the agent, and as ``reward`` the mean score of the last episodes (while none has ended: so far) in the
            first half of the environments; the other half gives ``test_reward``, which nothing decides by.
        """
        entropies = [self.update(state, config) for _ in range(self.updates)]
        half = self.environments // 2
        metrics = {"reward": last(state, slice(None, half)), "test_reward": last(state, slice(half, None))}
        return state, metrics | {"entropy": float(np.mean(entropies))}

    def save(self, state: Agent) -> dict[str, Any]:
        """Everything but the games and the random numbers."""
        return {
            "network": state.network.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "returns": state.returns,
        }

    def load(self, tree: dict[str, Any], config: Any) -> Agent:
        """The agent with the hyperparameters of ``config``, in fresh games; two copies draw different numbers."""
        job = current_job()
        state = self.init(config, np.random.default_rng([job.seed, job.start]))
        state.network.load_state_dict(tree["network"])
        load_optimizer(state.optimizer, tree["optimizer"])  # Adam's moments, not the old learning rate
        state.returns = np.array(tree["returns"])
        return state

    def update(self, agent: Agent, config: Any) -> float:
        """A rollout and what is learned from it; the entropy of the policy in nats."""
        moments = self.play(agent)
        with torch.no_grad():
            _, value = forward(agent.network, agent.seen.to(self.device))
        advantages = gae(moments, value.cpu(), 1 - config["myopia"])
        batch = [part.flatten(0, 1).to(self.device) for part in (*moments, advantages, advantages + moments.value)]
        entropies = []
        for _ in range(self.epochs):
            order = torch.randperm(self.unroll * self.environments, generator=agent.random)
            for rows in order.to(self.device).chunk(self.minibatches):
                *parts, gains, targets = (part[rows] for part in batch)
                loss, entropy = ppo(agent.network, Moments(*parts), gains, targets, config["entropy_cost"])
                agent.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.network.parameters(), 0.5)
                agent.optimizer.step()
                entropies.append(entropy.item())
        return float(np.mean(entropies))

    @torch.no_grad()
    def play(self, agent: Agent) -> Moments:
        """A rollout."""
        moments = []
        for _ in range(self.unroll):
            logits, value = forward(agent.network, agent.seen.to(self.device))
            log_probs = logits.log_softmax(-1).cpu()
            action = torch.multinomial(log_probs.exp(), 1, generator=agent.random)
            frames, reward, terminated, truncated, about = agent.emulators.step(action[:, 0].numpy())
            over = terminated | truncated
            agent.sums += reward
            agent.returns[over] = np.column_stack([agent.returns[:, 1:], agent.sums])[over]
            agent.sums[over] = 0
            ended = over | (about["lives"] < agent.lives)  # for learning, the loss of a life is an end as well
            log_prob = log_probs.gather(1, action)[:, 0]
            came = torch.tensor(np.sign(reward), dtype=torch.float32), torch.tensor(ended)
            moments.append(Moments(agent.seen, action[:, 0], log_prob, value.cpu(), *came))
            agent.seen, agent.lives = torch.tensor(frames), about["lives"]
        return Moments(*(torch.stack(part) for part in zip(*moments, strict=True)))


def last(agent: Agent, part: slice) -> float:
    """The mean score of the last episodes in some of the environments."""
    returns = agent.returns[part]
    ended = ~np.isnan(returns)
    return float(returns[ended].mean() if ended.any() else agent.sums[part].mean())


def layers(actions: int, size: int) -> nn.Module:
    """Two convolutions and a hidden layer, for four frames of this size; orthogonal weights."""
    corner = (size - 8) // 4 + 1
    corner = (corner - 3) // 2 + 1
    network = nn.Sequential(
        nn.Conv2d(4, 16, 8, stride=4), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * corner**2, 256), nn.ReLU(),
        nn.Linear(256, actions + 1),
    )  # fmt: skip
    found = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in found:
        nn.init.orthogonal_(layer.weight, 0.01 if layer is found[-1] else 2**0.5)
        nn.init.zeros_(layer.bias)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def forward(network: nn.Module, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the actions [n, actions], and the value [n], of what is seen [n, 4, size, size]."""
    out = network(seen.to(torch.float32, memory_format=torch.channels_last) / 255)
    return out[:, :-1], out[:, -1]


def gae(moments: Moments, value: Tensor, discount: float, decay: float = 0.95) -> Tensor:
    """Generalised advantage estimates [unroll, environments] (Schulman et al. 2016, arXiv:1506.02438)."""
    advantages = torch.zeros_like(moments.value)
    advantage = torch.zeros_like(value)
    for step in reversed(range(len(advantages))):
        goes_on = 1.0 - moments.ended[step].float()
        surprise = moments.reward[step] + discount * value * goes_on - moments.value[step]
        advantage = surprise + discount * decay * goes_on * advantage
        advantages[step], value = advantage, moments.value[step]
    return advantages


def ppo(
    network: nn.Module, moments: Moments, advantages: Tensor, targets: Tensor, entropy_cost: float, clip: float = 0.1
) -> tuple[Tensor, Tensor]:
    """The loss of a minibatch (Schulman et al. 2017, equations 7 and 9), and the entropy of the policy in nats."""
    logits, value = forward(network, moments.seen)
    log_probs = logits.log_softmax(-1)
    ratio = (log_probs.gather(1, moments.action[:, None])[:, 0] - moments.log_prob).exp()
    gain = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain).mean()
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
    return 0.25 * (value - targets).square().mean() - policy - entropy_cost * entropy, entropy


SPACE = ts.Space(
    {
        "lr": ts.Float(1e-5, 1e-2, log=True),
        "entropy_cost": ts.Float(1e-4, 1e-1, log=True),
        "myopia": ts.Float(1e-3, 1e-1, log=True),  # 1 less the discount
    }
)


def problem(given: argparse.Namespace) -> Problem:
    """What the options say."""
    cuda = any(device.startswith("cuda") for device in given.devices or ())
    return Problem(
        name=given.game,
        task=Atari(given.game, given.updates, size=given.size, device="cuda" if cuda else "cpu"),
        space=SPACE,
        goal=ts.Goal("reward", maximise=True),
        report="test_reward",
        population=given.population,
        steps=given.steps,
        ready=given.ready,
    )


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = parser(__doc__, population=16, steps=40, ready=4)
    games = get_all_rom_ids()
    made.add_argument("--game", choices=games, metavar="NAME", default="kung_fu_master", help="such as ms_pacman")
    made.add_argument("--updates", type=int, default=16, help="a step has so many rollouts of 1,024 actions")
    made.add_argument("--size", type=int, default=42, help="of a frame; 84 for games with small things")
    made.add_argument("--workers", type=int, default=2, help="worker processes")
    made.add_argument("--devices", nargs="+", help="instead: a place for each, such as cuda:0:0.25 (a quarter)")
    return made


if __name__ == "__main__":
    given = arguments().parse_args()
    run(problem(given), given, workers=1 if given.devices else given.workers, devices=given.devices)
