"""Balance a pole by actor and critic: beside the policy a net learns what to expect.

    python examples/actor_critic.py           # until it balances for 475 of 500 steps
    python examples/actor_critic.py --tiny    # 120 episodes of at most 200 steps, seconds

As in reinforce.py, an iteration is a step of the game and an epoch an episode. Actions become
likelier by how much more came after them than the critic expected (V. R. Konda and
J. N. Tsitsiklis, Actor-critic algorithms, 2000). How an episode ends is an event of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import gymnasium
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cookfire.engine import Engine, EventEnum, Events
from cookfire.handlers import EpochOutputStore, ProgressBar


class Ends(EventEnum):
    """How an episode may end."""

    FALLEN = "fallen"
    BALANCED = "balanced"  # to its last step


class Step(NamedTuple):
    """What an episode consists of."""

    log_probability: Tensor  # of the action that was taken
    value: Tensor  # what the critic expected
    reward: float


class ActorCritic(nn.Module):
    """Observations (4,) to the actions' logits (2,) and the value ()."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 128), nn.ReLU())
        self.actor, self.critic = nn.Linear(128, 2), nn.Linear(128, 1)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to do, and what to expect."""
        x = self.body(observation)
        return self.actor(x), self.critic(x).squeeze(-1)


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
    model = ActorCritic()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def play(engine: Engine, _: int) -> Step:
        state: Any = engine.state  # which keeps what the next step needs
        logits, value = model(state.observation)
        log_probabilities = logits.log_softmax(dim=0)
        action = int(log_probabilities.exp().multinomial(1))
        observation, reward, fallen, late, _info = game.step(action)
        state.observation = torch.from_numpy(observation)
        if fallen or late:
            engine.fire_event(Ends.FALLEN if fallen else Ends.BALANCED)
            engine.terminate_epoch()
        return Step(log_probabilities[action], value, float(reward))

    trainer = Engine(play)
    trainer.register_events(*Ends)
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
        steps: list[Step] = episode.data
        later = accumulate(
            (step.reward for step in reversed(steps)),
            lambda coming, reward: reward + arguments.discount * coming,
        )
        returns = torch.tensor(list(later)[::-1])
        returns = (returns - returns.mean()) / (returns.std() + 1e-6)
        values = torch.stack([step.value for step in steps])
        log_probabilities = torch.stack([step.log_probability for step in steps])
        surprise = returns - values.detach()
        loss = -(log_probabilities * surprise).sum() + F.smooth_l1_loss(
            values, returns, reduction="sum"
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    @trainer.on(Events.EPOCH_COMPLETED)
    def look(engine: Engine) -> None:
        balanced.append(len(episode.data))
        last = balanced[-100:]
        engine.state.metrics["steps"] = sum(last) / len(last)

    @trainer.on(Events.EPOCH_COMPLETED)
    def stop(engine: Engine) -> None:
        if len(balanced) >= 100 and engine.state.metrics["steps"] >= 0.95 * longest:
            engine.terminate()

    # A bar over all episodes, not one for each.
    ProgressBar().attach(
        trainer,
        ["steps"],
        event_name=Events.EPOCH_COMPLETED,
        closing_event_name=Events.COMPLETED,
    )
    trainer.run(range(longest), max_epochs=episodes)
    ends = ", ".join(f"{end} {trainer.state.get_event_attrib_value(end)} times" for end in Ends)
    mean = trainer.state.metrics["steps"]
    print(f"{len(balanced)} episodes, {ends}; balanced for {mean:.0f} steps, mean of the last 100")
    return balanced


if __name__ == "__main__":
    main()
