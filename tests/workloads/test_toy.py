from __future__ import annotations

import pytest

from tunesmith.workloads import toy

GRID = 1.2 - 0.81 - (0.9 * 0.98**200) ** 2  # exact: one coordinate never moves
SHARED = 1.2 - 2 * (0.9 * 0.98**100) ** 2  # exact: both members take turns at the same theta


@pytest.fixture(scope="module", params=[4, 10])
def table(request: pytest.FixtureRequest) -> dict[str, list[float]]:
    return toy.figure2(range(8), request.param)


def median(table: dict[str, list[float]], name: str) -> float:
    return toy.spread(table[name])[0]


def test_neither_member_alone_solves_it(table: dict[str, list[float]]) -> None:
    assert table["grid search"] == pytest.approx([GRID] * 8)


def test_copying_the_hyperparameters_too_without_exploring_is_useless(table: dict[str, list[float]]) -> None:
    assert table["exploit only, copy theta and h"] == pytest.approx([GRID] * 8)


def test_copying_theta_solves_it_with_the_hyperparameters_of_the_beginning(table: dict[str, list[float]]) -> None:
    assert table["exploit only, copy theta"] == pytest.approx([SHARED] * 8)


def test_exploring_without_copying_is_a_lottery(table: dict[str, list[float]]) -> None:
    _, low, high = toy.spread(table["explore only, additive noise"])
    assert low < GRID < 0.9 < high


@pytest.mark.parametrize("inherited", ["theta", "theta and h"])
@pytest.mark.parametrize("explore", ["additive noise", "perturb"])
def test_population_based_training_solves_it(table: dict[str, list[float]], inherited: str, explore: str) -> None:
    assert median(table, f"PBT, copy {inherited}, {explore}") > 1.1


def test_a_play_is_reproducible_and_its_paths_are_whole() -> None:
    mode = next(mode for mode in toy.MODES if mode.name == "PBT, copy theta, additive noise")
    run = toy.play(mode, ready=10, seed=3)
    assert run == toy.play(mode, ready=10, seed=3)
    for path in run.paths:
        assert sum(len(piece) - 1 for piece in path) == toy.STEPS
    starts = [path[0][0] for path in run.paths]
    assert starts == [(0.9, 0.9)] * 2
    ends = [path[-1][-1] for path in run.paths]
    assert run.q == max(1.2 - a * a - b * b for a, b in ends)


def test_spread() -> None:
    assert toy.spread([3.0]) == (3.0, 3.0, 3.0)
    assert toy.spread([float(i) for i in range(11)]) == pytest.approx((5.0, 1.0, 9.0))


def test_the_figure_has_a_panel_a_mode() -> None:
    figure = toy.plot(range(1), ready=50)
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert [title.split(":")[0] for title in titles] == ["PBT", "Explore only", "Exploit only", "Grid search"]
    assert titles[3] == "Grid search: Q = 0.39"
