"""params.yaml is read strictly: a right result or one line that says what to do."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cookfire.handlers import recipe


@dataclasses.dataclass(frozen=True)
class Optimizer:
    name: Literal["sgd", "adam"]
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr: expected more than 0, got {self.lr}")


@dataclasses.dataclass(frozen=True)
class Config(recipe.Config):
    epochs: int
    optimizer: Optimizer
    widths: list[int] = dataclasses.field(default_factory=list)
    classes: tuple[str, ...] = ()
    momentum: float | None = None
    crop: int | tuple[int, int] = 4
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    augment: bool = False


GOOD = """
tiny:
  data: data/tiny
  epochs: 2
  optimizer: {name: sgd, lr: 1e-3}
"""


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipes" / "toy" / "params.yaml"
    path.parent.mkdir(parents=True)
    return path


def load(path: Path, text: str, profile: str = "tiny") -> Config:
    path.write_text(text, encoding="utf-8")
    return recipe.load(path, profile, Config)


def complaint(path: Path, text: str, profile: str = "tiny") -> str:
    with pytest.raises(recipe.RecipeError) as caught:
        load(path, text, profile)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    prefix = "recipes/toy/params.yaml:"
    assert line.startswith(prefix)
    return line.removeprefix(prefix).strip()


def test_a_profile_becomes_the_frozen_dataclass_with_nested_fields_and_defaults(
    params: Path,
) -> None:
    config = load(params, GOOD)
    assert config.optimizer == Optimizer("sgd", 0.001)
    assert (config.data, config.epochs, config.processes, config.precision) == (
        "data/tiny", 2, 1, "float32",
    )  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 3


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("widths: [1, 2]", "widths", [1, 2]),
        ("classes: [a, 'no']", "classes", ("a", "no")),
        ("momentum: 1", "momentum", 1.0),
        ("momentum: null", "momentum", None),
        ("momentum: .inf", "momentum", float("inf")),
        ("crop: 3", "crop", 3),
        ("crop: [3, 4]", "crop", (3, 4)),
        ("weights: {a: 1, b: 2.5}", "weights", {"a": 1.0, "b": 2.5}),
        ("augment: true", "augment", True),
        ("backend: gloo", "backend", "gloo"),
        ("environment: {OMP_NUM_THREADS: 1, MKL_CBWR: COMPATIBLE}", "environment",
         {"OMP_NUM_THREADS": 1, "MKL_CBWR": "COMPATIBLE"}),
    ],
)  # fmt: skip
def test_each_kind_of_value_is_understood(
    params: Path, line: str, field: str, value: object
) -> None:
    found = getattr(load(params, f"{GOOD}  {line}\n"), field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("epoch: 3", "tiny.epoch: unknown key; did you mean 'epochs'?"),
        ("zebra: 3", "tiny.zebra: unknown key"),
        ("7: 3", "tiny.7: unknown key"),
        ('"a\\nb": 3', "tiny.'a\\nb': unknown key"),
        ("seed: 1.0", "tiny.seed: expected int, got 1.0 (float)"),
        ("seed: true", "tiny.seed: expected int, got True (bool)"),
        ("seed: '1'", "tiny.seed: expected int, got '1' (str)"),
        ("augment: 1", "tiny.augment: expected bool, got 1 (int)"),
        ("augment: yes", "tiny.augment: expected bool, got 'yes' (str)"),
        ("momentum: true", "tiny.momentum: expected float, got True (bool)"),
        ("momentum: .nan", "tiny.momentum: expected float, got nan (float)"),
        ("widths: 3", "tiny.widths: expected a list, got 3 (int)"),
        ("widths: [1, x]", "tiny.widths[1]: expected int, got 'x' (str)"),
        ("crop: [1]", "tiny.crop: expected int or tuple[int, int], got [1] (list)"),
        ("weights: {a: x}", "tiny.weights.a: expected float, got 'x' (str)"),
        ("weights: [1]", "tiny.weights: expected a mapping, got [1] (list)"),
        ("precision: bf16", "tiny.precision: expected one of 'float32', 'bfloat16', 'float16', "
         "got 'bf16' (str); did you mean 'bfloat16'?"),
        ("processes: 0", "tiny.processes: expected at least 1, got 0"),
        ("environment: {A=B: 1}", "tiny.environment: 'A=B' can't be an environment variable"),
        ("environment: {A: [1]}", "tiny.environment.A: expected str or int, got [1] (list)"),
        ("epochs: 3", "6:3: the key 'epochs' is given twice"),
        ("seed: !!python/name:os.system x", "6:9: the tag "
         "'tag:yaml.org,2002:python/name:os.system' is not supported"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_in_one_line(params: Path, line: str, expected: str) -> None:
    given = complaint(params, f"{GOOD}  {line}\n")
    assert given == expected


def test_a_missing_key_and_a_value_that_the_dataclass_refuses_are_named(params: Path) -> None:
    assert complaint(params, GOOD.replace("epochs: 2", "")) == "tiny.epochs: missing key"
    assert complaint(params, GOOD.replace("1e-3", "-1")) == (
        "tiny.optimizer.lr: expected more than 0, got -1.0"
    )
    assert complaint(params, "tiny: 3") == (
        "tiny: expected a block with the fields of Config, got 3 (int)"
    )


def test_an_unknown_profile_is_answered_with_the_list_and_shared_blocks_are_no_profiles(
    params: Path,
) -> None:
    text = GOOD.replace("tiny:", ".shared: &shared {seed: 3}\ntiny:") + "  <<: *shared\nfull: {}\n"
    assert load(params, text).seed == 3
    assert recipe.profiles(params) == ["tiny", "full"]
    assert complaint(params, text, "tinny") == (
        "no profile 'tinny'; did you mean 'tiny'? (there are: tiny, full)"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected one block a profile, like `tiny:`"),
        ("tiny: [", "1:8: expected the node content, but found '<stream end>'"),
        ("tiny: &a {b: *a}", "1:7: an alias that contains itself"),
        ("[" * 9999, "nested too deeply"),
        ("tiny: {data: \x00}", "not YAML: unacceptable character #x0000: special characters are "
         'not allowed in "<unicode string>", position 13'),
        ("? [a]\n: 3", "1:3: a key must be a single word"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml_is_one_line_with_the_place(
    params: Path, text: str, expected: str
) -> None:
    assert complaint(params, text) == expected


def test_a_file_that_is_missing_or_not_text_is_one_line(params: Path) -> None:
    with pytest.raises(recipe.RecipeError, match="toy/params.yaml: can't be read: No such file"):
        recipe.load(params, "tiny", Config)
    params.write_bytes(b"tiny: \xff")
    with pytest.raises(recipe.RecipeError, match="not UTF-8 text"):
        recipe.load(params, "tiny", Config)


def test_numbers_are_those_that_dvc_reads(params: Path) -> None:
    texts = ["1e-3", "yes", "010", "0o10", "1_000", "12:30:45", ".5", "1.", "+1", "1e3", "0x1F",
             "~", "Null", "-.inf", "0b11", "off", "True", "08", "-0x1F", "1e3.5"]  # fmt: skip
    params.write_text("".join(f"k{at}: {text}\n" for at, text in enumerate(texts)))
    from cookfire.handlers.recipe._yaml import read_yaml

    dvc = importlib.import_module("dvc.utils.serialize")
    assert read_yaml(params) == dvc.load_yaml(str(params))


def test_a_field_of_a_type_that_yaml_cannot_hold_is_the_recipes_mistake(params: Path) -> None:
    params.write_text("tiny: {data: x, odd: 3}")
    kind = dataclasses.make_dataclass("Odd", [("odd", set[int])], bases=(recipe.Config,),
                                      frozen=True)  # fmt: skip
    with pytest.raises(TypeError, match="tiny.odd: a parameter can't be of type set"):
        recipe.load(params, "tiny", kind)


SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from(["sgd", "adam", "float32", "bfloat16"])
)  # fmt: skip
VALUE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "lr", "betas", "a"]) | SCALAR, inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from([field.name for field in dataclasses.fields(Config)])
BLOCK = st.dictionaries(FIELDS | st.text(max_size=5), VALUE, max_size=5)


def fits(value: object, kind: object) -> bool:
    """Tell, in a way of its own, whether a loaded value is of its field's type."""
    simple = {"epochs": int, "seed": int, "processes": int, "save_every": int, "data": str,
              "augment": bool, "compile": bool, "optimizer": Optimizer}  # fmt: skip
    if kind in simple:
        return type(value) is simple[str(kind)]
    if kind == "momentum":
        return value is None or type(value) is float
    if kind == "widths":
        return type(value) is list and all(type(item) is int for item in value)
    if kind == "classes":
        return type(value) is tuple and all(type(item) is str for item in value)
    if kind == "crop":
        return type(value) is int or (type(value) is tuple and len(value) == 2)
    if kind == "weights":
        return all(type(k) is str and type(v) is float for k, v in dict(value).items())
    return True


def load_or_complain(folder: Path, text: str) -> Config | str:
    path = folder / "fuzzed.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        return recipe.load(path, "tiny", Config)
    except recipe.RecipeError as error:
        return str(error)


def is_right(outcome: Config | str) -> bool:
    if isinstance(outcome, str):
        return len(outcome.splitlines()) == 1 and "fuzzed.yaml:" in outcome
    return all(
        fits(getattr(outcome, field.name), field.name) for field in dataclasses.fields(Config)
    )


@settings(max_examples=300, deadline=None)
@given(block=BLOCK)
def test_any_block_is_either_refused_in_one_line_or_loaded_with_the_right_types(
    tmp_path_factory: pytest.TempPathFactory, block: dict[str, object]
) -> None:
    base = {"data": "d", "epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}}
    text = yaml.safe_dump({"tiny": {**base, **block}})
    assert is_right(load_or_complain(tmp_path_factory.getbasetemp(), text))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("tiny: {}[]&*!|>-\n\"'<,#?@%e0.1_x~"), max_size=40))
def test_any_text_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    outcome = load_or_complain(tmp_path_factory.getbasetemp(), text)
    assert isinstance(outcome, str), "no such text holds all the keys"
    assert is_right(outcome)
