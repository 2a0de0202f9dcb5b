"""Balance a pole by REINFORCE: no data but what the policy itself lives to see.

    python examples/reinforce.py           # until it balances for 475 of 500 steps
    python examples/reinforce.py --tiny    # 120 episodes of at most 200 steps, seconds

An iteration of the trainer is a step of the game, an epoch an episode, which ends when the pole
falls. After each, the policy's weights move so that actions become likelier by how much more came
after them than is usual: R. J. Williams, Simple statistical gradient-following algorithms (1992).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from cookfire.engine import Engine, Events
from cookfire.handlers import EpochOutputStore, ProgressBar

Step = tuple[Tensor, float]  # the log probability of the action that was taken, and its reward


def returns_of(rewards: Sequence[float], discount: float) -> Tensor:
    """Return the discounted sum of each step's reward and all later ones."""
    returns, coming = [], 0.0
    for reward in reversed(rewards):
        coming = reward + discount * coming
        returns.append(coming)
    return torch.tensor(returns[::-1])


def main(argv: Sequence[str] | None = None) -> list[int]:
    """Learn; return how many steps the pole was balanced in each episode."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="120 episodes of at most 200 steps")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--discount", type=float, default=0.99, help="a step (0.99)")
    arguments = parser.parse_args(argv)
    episodes, longest = (120, 200) if arguments.tiny else (2000, 500)

    torch.manual_seed(arguments.seed)
    game = gymnasium.make("CartPole-v1", max_episode_steps=longest)
    policy = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 2))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)

    def play(engine: Engine, _: int) -> Step:
        state: Any = engine.state  # which keeps what the next step needs
        log_probabilities = policy(state.observation).log_softmax(dim=0)
        action = int(log_probabilities.exp().multinomial(1))
        observation, reward, fallen, late, _info = game.step(action)
        state.observation = torch.from_numpy(observation)
        if fallen or late:
            engine.terminate_epoch()
        return log_probabilities[action], float(reward)

    trainer = Engine(play)
    episode = EpochOutputStore()
    episode.attach(trainer)
    balanced: list[int] = []

    @trainer.on(Events.EPOCH_STARTED)
    def begin(engine: Engine) -> None:
        state: Any = engine.state
        observation, _ = game.reset(seed=arguments.seed if engine.state.epoch == 1 else None)
        state.observation = torch.from_numpy(observation)

    @trainer.on(Events.EPOCH_COMPLETED)
    def learn() -> None:
        log_probabilities, rewards = zip(*episode.data, strict=True)
        returns = returns_of(rewards, arguments.discount)
        advantages = (returns - returns.mean()) / (returns.std() + 1e-6)
        loss = -(torch.stack(log_probabilities) * advantages).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    @trainer.on(Events.EPOCH_COMPLETED)
    def look(engine: Engine) -> None:
        balanced.append(len(episode.data))
        last = balanced[-100:]
        engine.state.metrics["steps"] = sum(last) / len(last)
        if len(last) == 100 and engine.state.metrics["steps"] >= 0.95 * longest:
            engine.terminate()

    # A bar over all episodes, not one for each.
    ProgressBar().attach(
        trainer,
        ["steps"],
        event_name=Events.EPOCH_COMPLETED,
        closing_event_name=Events.COMPLETED,
    )
    trainer.run(range(longest), max_epochs=episodes)
    mean = trainer.state.metrics["steps"]
    print(f"after {len(balanced)} episodes: balanced for {mean:.0f} steps, mean of the last 100")
    return balanced


if __name__ == "__main__":
    main()
