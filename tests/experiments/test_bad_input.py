"""Wrong configurations and command lines; `tests.test_bad_input` tests the library."""

import collections
import getpass
import importlib
import re
from pathlib import Path

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.command_line import path_of
from experiments.runners.registry import RUNNERS, find_runner
from experiments.runners.sweeps import Slice
from tests import test_bad_input as library
from tests.bad_input import KINDS, ROOT, Case, check_error
from tests.experiments import command_lines, tiny
from tests.experiments.test_configs import NAMES, get_config

NAN, INF = float("nan"), float("inf")
CONFIGS = {
    "connectivity": tiny.connected,
    "iterative": tiny.config,
    "learned": tiny.learned,
    "one_shot": tiny.one_shot,
    "pruning_at_init": tiny.at_init,
}
LISTED = "expected a non-empty list"
AT_MOST = "expected at most 1000000000"
EXPECTED = r"expected the losses float32\[11\] of logits \[11, 10\]"
OWN = "tests.experiments.functions"
TWICE = "more than once"


def plan(config, without=None, data_dir=None, part=None, **changes):
    """Plan a runner's tiny configuration, or that of a file, with some settings changed."""
    settings = CONFIGS[config]().to_dict() if isinstance(config, str) else config.to_dict()
    settings = {name: x for name, x in (settings | changes).items() if name != without}
    runner = RUNNERS[CONFIGS[config]().runner if isinstance(config, str) else config.runner]
    return runner.make_plan(ConfigDict(settings), data_dir, part)


def case(kind, runner, pattern, error=ValueError, **changes):
    return Case(kind, lambda: plan(runner, **changes), error, pattern)


def in_all(kind, pattern, error=ValueError, **changes):
    return [case(kind, runner, pattern, error, **changes) for runner in CONFIGS]


def integer(name, value, least=1):
    return rf"config\.{name} has {value!r}, expected an integer of {least} or more"


WRONG = [
    # Types
    *(c for v in ("0.1", True, None, {0.1})
      for c in in_all("types", "learning_rate is .*, expected a finite number", learning_rate=v)),
    *(c for wrong, pattern in (((), r"is \(\), expected a number or a list of one or more"),
                               ((1e-3, NAN), "is nan, expected a finite number above 0"),
                               ((1e-3, -1), "is -1, expected a finite number above 0"),
                               (("a",), "is 'a', expected a finite number above 0"),
                               (((1e-3,),), r"is \(0.001,\), expected a finite number above 0"),
                               ((1e-3, 1e-3), f"has 0.001 {TWICE}"),
                               ((1, 1.0), f"has 1, 1.0 {TWICE}"))
      for c in in_all("types", rf"config\.learning_rate {pattern}", learning_rate=wrong)),
    *(case("types", runner, rf"config\.{name} is .*, expected a", **{name: (0.5, wrong)})
      for runner, name, wrong in (("iterative", "momentum", 1.0), ("learned", "momentum", -1),
                                  ("learned", "weight_decay", -0.1),
                                  ("pruning_at_init", "default_rate", 1.0))),
    *(case("types", "one_shot", rf"config\.{name} is \(0.1, 0.2\), expected one number: the runner "
           "one_shot sweeps none; run it once per number", **{name: (0.1, 0.2)})
      for name in ("learning_rate", "weight_decay", "momentum", "default_rate")),
    *in_all("types", r"config\.epochs has \(1, 2\), expected an integer", epochs=(1, 2)),
    *in_all("types", r"config\.clip_norm is \(0.1, 0.2\), expected a finite number of 0 or more",
            clip_norm=(0.1, 0.2)),
    case("names", "iterative", r"config.momentum is \(0.0, 0.5\), but adam has no argument",
         momentum=(0.0, 0.5)),
    case("names", "iterative", "config.nesterov is True, but sgd has no Nesterov momentum here",
         optimizer="sgd", momentum=(0.0, 0.5), nesterov=True),
    *(c for name in ("epochs", "batch_size", "eval_every", "chunk_evals")
      for c in in_all("types", integer(name, 1.5), **{name: 1.5})),
    *in_all("types", integer("epochs", "3"), epochs="3"),
    *in_all("types", integer("batch_size", True), batch_size=True),
    *in_all("types", integer("members_at_once", None, 0), members_at_once=None),
    *in_all("types", rf"config\.seeds is 3, {LISTED}", seeds=3),
    *in_all("types", rf"config\.seeds is '012', {LISTED}", seeds="012"),
    *in_all("types", integer("seeds", 1.0, 0), seeds=(1.0,)),
    *in_all("types", integer("seeds", "1", 0), seeds=("1",)),
    *in_all("types", integer("seeds", True, 0), seeds=(True,)),
    case("types", "iterative", integer("num_rounds", 1.5, 0), num_rounds=1.5),
    case("types", "iterative", integer("keep_checkpoints", "2"), keep_checkpoints="2"),
    case("types", "iterative", rf"config\.variants is 'random', {LISTED}", variants="random"),
    case("types", "iterative", rf"config\.variants is 5, {LISTED}", variants=5),
    case("types", "iterative", rf"config\.variants is None, {LISTED}", variants=None),
    case("types", "iterative", "unknown criterion '3'; known: ", variants=(3,)),
    case("types", "learned", rf"config\.variants is 'init', {LISTED}", variants="init"),
    case("types", "learned", "count_gradient is 'yes', expected a bool", count_gradient="yes"),
    case("types", "learned", "config.momentum is '0.9', expected a n", momentum="0.9"),
    case("types", "learned", "config.momentum is False, expected a n", momentum=False),
    case("types", "learned", "config.initial_logits has '1', expected a f", initial_logits=("1",)),
    case("types", "learned", f"config.initial_logits is 1.0, {LISTED}", initial_logits=1.0),
    case("types", "one_shot", f"config.criteria is 'random', {LISTED}", criteria="random"),
    case("types", "one_shot", f"config.powers is 3, {LISTED}", powers=3),
    case("types", "one_shot", integer("powers", 1.5, 0), powers=(1.5,)),
    case("types", "one_shot", integer("retrain_power", "2", -1), retrain_power="2"),
    *(case("types", runner, "config.rates: rules is 5, expected a list of pairs", rates=5)
      for runner in ("iterative", "one_shot")),
    *(case("types", "iterative", r"config.rates: rule .* is not a pair \(pattern, rate\)", rates=v)
      for v in (("output/kernel", 0.1), (("output/kernel",),), (("output/kernel", 0.1, 2),))),
    *(case("types", "iterative", f"config.rates: {wrong}", rates=rates, scope="global")
      for wrong, rates in ((r"rule .* is not a pair", ("output/kernel", 0.0)), ("rules is 5", 5))),
    case("types", "iterative", "config.rates: .* rule 'output/kernel' is '0.1', expected a number",
         rates=(("output/kernel", "0.1"),)),
    case("types", "iterative", "config.rates: rule b'.*' is not a regular expression",
         rates=((b"output/kernel", 0.1),)),
    case("types", "iterative", "config.rates: rules is 5", network="conv2", rates=5),
    *(case("types", runner, "config.experiment is 3, expected a non-empty", experiment=3)
      for runner in CONFIGS),
    Case("names", lambda: find_runner(ConfigDict()), ValueError,
         "--config: the configuration names no runner; make it by a function of .*base.iterative"),
    Case("types", lambda: find_runner({"runner": "iterative"}), TypeError,
         "get_config returns {'runner': 'iterative'}, expected a ConfigDict"),
    # Names
    *in_all("names", "unknown network 'lenet30'; did you mean 'lenet300'", network="lenet30"),
    *in_all("names", "unknown network None; known: MODULE:FUNCTION, conv2", network=None),
    *in_all("names", "unknown data set 'mnist2'; did you mean 'mnist'", dataset="mnist2"),
    *in_all("names", "matmul_precision is 'float31', expected one of", matmul_precision="float31"),
    *in_all("names", "config has colour, expected only runner, ", colour="red"),
    *in_all("names", "config has no seeds, expected runner, ", without="seeds"),
    *in_all("names", "config.experiment is '', expected a non-empty", experiment=""),
    case("names", "one_shot", "config has no criteria, expected", without="criteria"),
    case("names", "one_shot", "config has num_rounds, expected only", num_rounds=2),
    Case("names", lambda: find_runner(ConfigDict({"runner": "learnd"})), ValueError,
         "unknown runner 'learnd'; did you mean 'learned'"),
    case("names", "iterative", "unknown criterion 'randm'; did you mean", variants=("randm",)),
    case("names", "iterative", "unknown mask-1 action 'zero'; ", variants=("random:zero",)),
    case("names", "iterative", "unknown mask-0 action 'z'; ", variants=("random:rewind:z",)),
    case("names", "iterative", "'a:b:c:d' has more parts than cr", variants=("a:b:c:d",)),
    case("names", "iterative", "unknown criterion ''; known", variants=("",)),
    case("names", "learned", "unknown kind of weights 'innit'; did you", variants=("innit",)),
    case("names", "learned", "'init:scale', expected weights or weigh", variants=("init:scale",)),
    case("names", "learned", "unknown draw 'topk'; did you mean 'top_k'", draw="topk"),
    case("types", "learned", "config.draw is 3, expected the name of a draw", draw=3),
    case("names", "learned", "'bernoulli:1', expected bernoulli alone: it", draw="bernoulli:1"),
    *(case("ranges", "learned", f"draw '{draw}', expected .* after '", draw=draw)
      for draw in ("top_k:0", "top_k:1.1", "top_k:x", "ternary:0", "gumbel:-1", "gumbel:inf",
                   "hard_concrete:", "continuous:nan", "threshold:inf")),
    case("names", "one_shot", "unknown criterion 'randm'; did you mean", criteria=("randm",)),
    case("names", "one_shot", "unknown criterion 'random:reinit'", criteria=("random:reinit",)),
    case("names", "one_shot", "unknown kind of weights 'innit'; did you", weights=("innit",)),
    case("names", "pruning_at_init", "unknown score 'snap'; did you mean", variants=("snap",)),
    *(case("names", "pruning_at_init", "variant 'snip:.*', expected score or score:rounds with 1",
           variants=(f"snip:{rounds}",)) for rounds in ("", "0", "-1", "x", "10001", "\u0662")),
    case("names", "iterative", "config.rates: rule 'fc/kernel' matches no leaf",
         rates=(("fc/kernel", 0.1),)),
    case("names", "iterative", r"rates: rule 'out\(' is not a regular", rates=(("out(", 0.1),)),
    case("names", "iterative", "config.rates: .*'output/bias' .*not prunable",
         rates=(("output/bias", 0.1),)),
    case("names", "iterative", "no rule for the convolutions of conv2; choose the network after",
         network="conv2"),
    # Ranges
    *(c for v in (0, -1, NAN, INF, 10**400)
      for c in in_all("ranges", "learning_rate is .*, expected a finite number above 0",
                      learning_rate=v)),
    *(c for name in ("epochs", "batch_size", "eval_every", "chunk_evals") for v in (0, -1)
      for c in in_all("ranges", integer(name, v), **{name: v})),
    *in_all("ranges", "config.batch_size is 1298, expected at most the 1297 ", batch_size=1298),
    *in_all("ranges", integer("members_at_once", -1, 0), members_at_once=-1),
    *in_all("ranges", integer("seeds", -1, 0), seeds=(-1,)),
    *in_all("ranges", "config.seeds has 4294967296, expected at most 4294967295", seeds=(2**32,)),
    *(c for name in ("epochs", "batch_size", "eval_every", "chunk_evals", "members_at_once")
      for c in in_all("ranges", f"config.{name} has {2**31}, {AT_MOST}", **{name: 2**31})),
    *(case("ranges", runner, f"config.{name} has .*, {AT_MOST}", **{name: value})
      for runner, name, value in (
          ("iterative", "num_rounds", 10**400), ("iterative", "keep_checkpoints", 2**63),
          ("learned", "num_draws", 2**31), ("learned", "retrain_epochs", 2**31),
          ("one_shot", "powers", (2**31,)), ("one_shot", "retrain_epochs", 2**31))),
    *in_all("ranges", "epochs is 1000000000, which takes .* steps of 100 .*, expected at most",
            epochs=10**9, batch_size=100),
    *(case("ranges", runner, "config.retrain_epochs is 1000000000, which takes .* steps",
           retrain_epochs=10**9) for runner in ("learned", "one_shot")),
    *in_all("types", "config.experiment is 'a.*b', expected letters, signs", experiment="a\nb"),
    *in_all("types", "config.experiment is '.*', expected letters", experiment="\udcff"),
    *(c for part in ("3/2", "a/b", "1/0", "1/1", "-1/2", "0/2/3", "", "0/02", "\u0660/\u0662")
      for c in in_all("ranges", "--slice is .*, expected i/n with i from 0 to n - 1", part=part)),
    *in_all("ranges", "--slice asks for 99 parts of . members, expected no more", part="0/99"),
    *(case("ranges", "iterative", r"config.default_rate is .*, expected a number in \[0,",
           default_rate=v) for v in (1.0, -0.1, NAN, "0.2", True)),
    *(case("ranges", "iterative", r"config.rates: .*, expected a number in \[0, 1\)",
           rates=(("output/kernel", v),)) for v in (1.0, -0.1, NAN, INF)),
    case("ranges", "iterative", integer("num_rounds", -1, 0), num_rounds=-1),
    case("ranges", "iterative", integer("keep_checkpoints", 0), keep_checkpoints=0),
    *(case("ranges", "learned", "config.initial_logits has .*, expected a finite number",
           initial_logits=(v,)) for v in (NAN, INF, 10**400)),
    *(case("ranges", "learned", r"config.momentum is .*, expected a number in \[0,", momentum=v)
      for v in (1.0, -0.1, NAN)),
    case("ranges", "learned", integer("num_draws", 0), num_draws=0),
    case("ranges", "learned", integer("retrain_epochs", -1, 0), retrain_epochs=-1),
    case("ranges", "learned", "retrain_learning_rate is nan, exp", retrain_learning_rate=NAN),
    case("ranges", "one_shot", integer("powers", -1, 0), powers=(-1,)),
    case("ranges", "one_shot", "retrain_power is 3, expected -1 or one of the po", retrain_power=3),
    case("ranges", "one_shot", integer("retrain_power", -2, -1), retrain_power=-2),
    case("ranges", "one_shot", integer("retrain_epochs", 0), retrain_epochs=0),
    case("ranges", "pruning_at_init", integer("ticket_rounds", -1, 0), ticket_rounds=(-1,)),
    case("ranges", "pruning_at_init", integer("examples_per_class", 0), examples_per_class=0),
    case("ranges", "pruning_at_init", "examples_per_class is 1000, expected at most .*, the train",
         examples_per_class=1000),
    case("ranges", "pruning_at_init", r"config.rates: .*, expected a number in \[0, 1\)",
         rates=(("output/kernel", 1.0),)),
    # Late rewinding and the scope of pruning
    *(case("ranges", "iterative", f"rewind_step is {step}, expected a multiple of the 10 of .*, l",
           rewind_step=step) for step in (15, 30)),
    case("ranges", "iterative", integer("rewind_step", -1, 0), rewind_step=-1),
    case("types", "iterative", "rewind_step is 10, .* ScheduleFreeState counts .*; expected 0",
         rewind_step=10, optimizer="optax.contrib.schedule_free_sgd"),
    case("names", "iterative", "unknown scope 'all'; known: global, layer", scope="all"),
    case("ranges", "iterative", "config.least is 3, but config.scope is layer, expected", least=3),
    case("ranges", "iterative", r"config.rates has \('output/kernel', 0.1\), but config.scope is g",
         scope="global"),
    case("ranges", "iterative", "config.default_rate is 0.0 and config.rates exempts all other",
         scope="global", default_rate=0.0, rates=()),
    case("ranges", "iterative", "config.least keeps 5[0-9]* weights in all layers, expected at mo",
         scope="global", least=40000, rates=()),
    *(case("names", runner, f"config has {name}, expected only", **{name: value})
      for runner in ("one_shot", "learned", "pruning_at_init")
      for name, value in (("rewind_step", 10), ("scope", "global"), ("least", 1))),
    # Copies of tickets
    case("ranges", "connectivity", integer("copies", 1, 2), copies=1),
    case("ranges", "connectivity", integer("points", 2, 3), points=2),
    case("ranges", "connectivity", integer("rounds", -1, 0), rounds=(-1,)),
    case("empty lists", "connectivity", rf"config.rounds is \(\), {LISTED}", rounds=()),
    case("duplicates", "connectivity", f"config.rounds has 1 {TWICE}", rounds=(1, 1)),
    case("names", "connectivity", "unknown criterion 'randm'; did you mean", variants=("randm",)),
    # Optimizers, schedules, losses and augmentation
    *in_all("names", "unknown optimizer 'adm'; did you mean 'adam'.*, or a function of your own, m",
            optimizer="adm"),
    *in_all("names", "unknown loss 'entropy'; did you mean 'cross_entropy'", loss="entropy"),
    *in_all("names", "unknown schedule 'cosin'; did you mean 'cosine'", schedule="cosin"),
    *(case("names", "iterative", f"the {name} '{text}' is not MODULE:FUNCTION", **{name: text})
      for name in ("optimizer", "loss") for text in ("a:", ":b", "a:b c")),
    *(case("names", "iterative", f"the {name} nowhere:f is in no module: nowhere is neither in",
           **{name: "nowhere:f"}) for name in ("optimizer", "loss")),
    *(case("names", "iterative", f"unknown function of {OWN} 'no'", **{name: f"{OWN}:no"})
      for name in ("optimizer", "loss")),
    *(case("types", "iterative", f"the {name} {OWN}:number is .*, expected a function", TypeError,
           **{name: f"{OWN}:number"}) for name in ("optimizer", "loss")),
    case("names", "iterative", "scale_by_adam has no argument learning_rate, expected a function",
         optimizer="optax.scale_by_adam"),
    *(case("types", "iterative", rf"the optimizer {OWN}:{own} raises {pattern}",
           optimizer=f"{OWN}:{own}") for own, pattern in (
               ("no_optimizer", "TypeError: the optimizer is 3, expected one of optax"),
               ("failing", r"RuntimeError: no \(.*functions.py, line [0-9]+\)$"))),
    *(case("shapes", "iterative", rf"config.optimizer: a step of {OWN}:{own} returns {pattern}",
           optimizer=f"{OWN}:{own}") for own, pattern in (
               ("growing", "a state of other shapes or types"),
               ("summing", "updates of other shapes or types, expected those of the weights"))),
    *in_all("shapes", rf"mean_hinge returns float32\[\], {EXPECTED}", loss=f"{OWN}:mean_hinge"),
    *(case("shapes", "learned", f"loss:? {OWN}:{own} {pattern}", loss=f"{OWN}:{own}")
      for own, pattern in (
          ("per_class", rf"returns float32\[11, 10\], {EXPECTED}"),
          ("two", rf"returns \(.*\), {EXPECTED}"),
          ("one_hot_only", "raises ValueError: Incompatible shapes for broadcasting"))),
    case("dtypes", "iterative", rf"errors returns int32\[11\], {EXPECTED}", loss=f"{OWN}:errors"),
    case("types", "iterative", "branching raises TracerBoolConversionError: Attempted boolean",
         loss=f"{OWN}:branching"),
    case("types", "iterative", "gradient of the loss .*of_numpy raises ValueError: Pure callb",
         loss=f"{OWN}:of_numpy"),
    *(c for name in ("optimizer", "loss") for v in (3, None, ["adam"])
      for c in in_all("types", f"unknown {name} .* known: ", **{name: v})),
    *(c for name in ("nesterov", "augment_flip")
      for c in in_all("types", f"config.{name} is 1, expected a bool", **{name: 1})),
    *(c for name in ("weight_decay", "clip_norm") for v in (-0.1, NAN, INF, "0.1", True)
      for c in in_all("ranges", f"config.{name} is .*, expected a finite number of 0 or more",
                      **{name: v})),
    *(c for name in ("warmup_steps", "augment_shift") for v in (-1, 0.5)
      for c in in_all("ranges", integer(name, v, 0), **{name: v})),
    *in_all("ranges", "config.warmup_steps is 500, expected less than the [0-9]+ steps of a tr",
            warmup_steps=500),
    *in_all("types", "config.drop_steps is 3, expected a list of steps", drop_steps=3),
    *(c for v in ((3, 2), (2, 2))
      for c in in_all("ranges", r"config.drop_steps is \(.*\), expected steps that grow",
                      drop_steps=v)),
    *in_all("ranges", integer("drop_steps", 0), drop_steps=(0,)),
    *(case("ranges", "iterative", f"config.drop_factor is {v}, expected a finite number above 0",
           drop_factor=v) for v in (0, -1.0)),
    *(case("ranges", "iterative", f"config.drop_steps has {wrong}, expected more than the 4 of "
           "config.warmup_steps and less than 21, the steps of a training", schedule="step",
           warmup_steps=4, drop_steps=steps)
      for wrong, steps in ((4, (4, 8)), (21, (8, 21)))),
    case("ranges", "one_shot", "config.drop_steps has 30, .* less than 21, the steps of a training",
         schedule="step", drop_steps=(30,), epochs=2),
    *in_all("empty lists", "config.drop_steps is empty, expected a step or more with schedule=step",
            schedule="step"),
    *in_all("names", "config.drop_steps is set, but config.schedule is cosine, expected step",
            schedule="cosine", drop_steps=(3,)),
    *in_all("names", "config.drop_factor is set, but config.schedule is constant, expected step",
            drop_factor=0.5),
    *in_all("names", "config.momentum is 0.5, but adam has no argument momentum, expected 0",
            optimizer="adam", momentum=0.5),
    *(case("names", "iterative", "config.nesterov is True, but .* has no Nesterov momentum here, ",
           optimizer=name, nesterov=True) for name in ("adam", "sgd", "optax.contrib.muon")),
    *in_all("ranges", "config.augment_shift is 8, expected less than 8, the height or width of the",
            augment_shift=8),
    *in_all("names", "config.augment_flip is True, expected False for the gray images of digits",
            augment_flip=True),
    # Paths
    *in_all("paths", "README.md is a file, expected a folder; remove it", NotADirectoryError,
            dataset="mnist", data_dir=str(ROOT / "README.md")),
    *(c for folder in ("/no/such/folder", str(ROOT / "tests"))
      for c in in_all("paths", f"no data set 'mnist' in {folder}; prepare it", FileNotFoundError,
                      dataset="mnist", data_dir=folder)),
    # Empty lists
    *in_all("empty lists", rf"config.seeds is \(\), {LISTED}", seeds=()),
    case("empty lists", "iterative", rf"config.variants is \(\), {LISTED}", variants=()),
    case("empty lists", "learned", rf"config.variants is \(\), {LISTED}", variants=()),
    case("empty lists", "learned", f"config.initial_logits is .*, {LISTED}", initial_logits=()),
    case("empty lists", "one_shot", rf"config.criteria is \(\), {LISTED}", criteria=()),
    case("empty lists", "one_shot", rf"config.weights is \(\), {LISTED}", weights=()),
    case("empty lists", "one_shot", rf"config.powers is \(\), {LISTED}", powers=()),
    case("empty lists", "pruning_at_init", f"config.ticket_rounds is .*, {LISTED}",
         ticket_rounds=()),
    # Duplicates
    case("duplicates", "iterative", f"variants has random {TWICE}", variants=("random", "random")),
    case("duplicates", "iterative", f"variants has large_final {TWICE}",
         variants=("large_final:rewind", "large_final")),
    case("duplicates", "iterative", f"variants has large_final {TWICE}",
         variants=("large_final", "random", "large_final:rewind:zero")),
    case("duplicates", "iterative", "config.rates: .*matches no leaf that an earlier rule left",
         rates=(("output/kernel", 0.1), ("output/kernel", 0.2))),
    case("duplicates", "learned", f"variants has init {TWICE}", variants=("init", "init")),
    case("duplicates", "learned", f"initial_logits has 1, 1.0 {TWICE}", initial_logits=(1, 1.0)),
    case("duplicates", "learned", f"initial_logits has nan {TWICE}", initial_logits=(NAN, NAN)),
    case("duplicates", "one_shot", f"criteria has random {TWICE}", criteria=("random", "random")),
    case("duplicates", "one_shot", f"weights has init {TWICE}", weights=("init", "init")),
    case("duplicates", "one_shot", f"powers has 1 {TWICE}", powers=(1, 1)),
    case("duplicates", "pruning_at_init", f"variants has snip {TWICE}",
         variants=("snip", "snip:1")),
    case("duplicates", "pruning_at_init", f"ticket_rounds has 1 {TWICE}", ticket_rounds=(1, 1)),
    # Seeds that repeat
    *in_all("repeated seeds", f"config.seeds has 1 {TWICE}", seeds=(1, 1)),
    *in_all("repeated seeds", f"config.seeds has 0, 2 {TWICE}", seeds=(0, 2, 1, 2, 0)),
    *in_all("repeated seeds", f"config.seeds has 1, 1.0 {TWICE}", seeds=(1, 1.0)),
]  # fmt: skip

OF_FILES = [
    (kind, name, changes, pattern)
    for name in NAMES
    for kind, changes, pattern in (
        ("repeated seeds", {"seeds": (3, 3)}, f"config.seeds has 3 {TWICE}"),
        ("ranges", {"learning_rate": NAN}, "config.learning_rate is nan, expected a finite"),
        ("names", {"colour": "red"}, "config has colour, expected only runner, "),
    )
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.kind)
def test_a_wrong_configuration_ends_in_one_line(case):
    check_error(case)


@pytest.mark.parametrize(("kind", "name", "changes", "pattern"), OF_FILES)
def test_every_config_file_is_checked(kind, name, changes, pattern):
    config = get_config(name, "lenet300,tiny")
    check_error(Case(kind, lambda: plan(config, **changes), ValueError, pattern))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "argument", ["lenet", "lenet300,small", ",tiny", "lenet300,tiny,tiny", " "]
)
def test_every_config_file_names_what_may_follow_the_colon(name, argument):
    module = importlib.import_module(f"experiments.configs.{name}")
    pattern = f"'{argument}' after the colon of --config is not understood; write FILE.py:NETWORK"
    check_error(Case("names", lambda: module.get_config(argument), ValueError, pattern))


def test_slices_compare_as_numbers():
    assert Slice.parse("10/11") == (10, 11)


# Command lines, each run in its own process. {new} is a folder that must not be created, {file} is
# a file in {home}, {link} is a broken link, {configs} is a folder of configuration files.

RUN = "experiments.run"
CONFIG = "--config=experiments/configs/quickstart.py:lenet300,tiny"
NEW = "--workdir={new}"
START = (RUN, CONFIG, NEW)
LAUNCH = ("tools.launch", CONFIG, NEW, "--cluster=local")
TABLE = "results/mask_criteria_lenet300_mnist.csv"
HEURISTIC = "results/heuristic_supermasks_lenet300_mnist.csv"
LINES = "results/linear_mode_connectivity_lenet300_mnist.csv"
A_NUMBER = "could not convert string to float"

ONE_SHOT = "--config=experiments/configs/heuristic_supermasks.py:lenet300,tiny"

# Every flag that is the path of something to write: the rest of the command, the flag, and what
# follows the folder in its path.
TO_WRITE = [
    ((RUN, CONFIG), "--workdir", ""),
    ((RUN, CONFIG), "--workdir", "/below"),
    (START, "--data_dir", ""),
    (START, "--compilation_cache", ""),
    (("experiments.datasets", "mnist"), "--data_dir", ""),
    (("tools.launch", CONFIG, "--slices=2", "--cluster=local"), "--workdir", ""),
    (("tools.collect", "results"), "--output", "/table"),
    (("tools.figure", "mask_criteria", TABLE), "--picture", "/f.png"),
    (("tools.plane",), "--picture", "/f.png"),
    (("tools.rerun", "f00"), "--results", ""),
    (("tools.rerun", "f00"), "--data_dir", ""),
    (("tools.report", "results"), "--page", "/index.html"),
    (("tools.benchmark",), "--table", "/table"),
]

FILES = {
    "bytes": "\0",
    "syntax": "def get_config(:",
    "nothing": "",
    "raises": "def get_config():\n    raise KeyError('boo')",
    "imports": "import nowhere_to_be_found",
    "divides": "1 / 0",
    "number": "def get_config(): return 3",
    "none": "def get_config(): return None",
    "opens": "def get_config(): return open('/no/such/file')",
    "sets": "from ml_collections import ConfigDict\n"
    "def get_config():\n    ConfigDict({'seeds': (1,)}).seeds = {1}",
    "long": "def get_config(): raise ValueError('two\\nlines')",
    "exits": "import sys\nsys.exit()",
    "empty": "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict()",
}

TYPED = [
    ("types", (*START, "--config.num_rounds=1.5"), "flag --config.num_rounds=1.5: invalid literal"),
    ("types", (*START, "--config.learning_rate=fast"), A_NUMBER),
    *(("types", (*START, f"--config.learning_rate={text}"), pattern) for text, pattern in (
        ("('a',)", f"flag --config.learning_rate=.*: {A_NUMBER}"), ("(1e-3", A_NUMBER),
        ("(1e-3,,2e-3)", A_NUMBER), ("((1,2),3)", A_NUMBER),
        ("()", r"config.learning_rate is \(\), expected a number or a list of one or more"),
        ("(1e-3,nan)", "config.learning_rate is nan, expected a finite number above 0"),
        ("(1e-3,-1)", "config.learning_rate is -1.0, expected a finite number above 0"),
        ("(1e-3,0.001)", f"config.learning_rate has 0.001 {TWICE}"))),
    ("types", (*START, "--config.epochs=(1,2)"), "flag --config.epochs=.*: invalid literal for"),
    ("types", (*START, "--config.clip_norm=1,2"), r"clip_norm is \(1.0, 2.0\), expected a fini"),
    ("types", (RUN, ONE_SHOT, NEW, "--config.learning_rate=(1e-3,3e-3)"),
     "expected one number: the runner one_shot sweeps none"),
    ("types", (*START, "--config.seeds=a"), "config.seeds has 'a', expected an integer of 0 or"),
    ("types", (*START, "--config.seeds=0,b"), "config.seeds has 'b', expected an integer of 0 or"),
    ("types", (*START, "--config.seeds={{0:1}}"), r"config.seeds has \{0: 1\}, expected an int"),
    ("types", (*START, "--config.variants=('random'"), r"expected a list such as a,b or \('a','b'"),
    ("types", (*START, "--config.epochs=1\n2"), "flag --config.epochs=1 2: invalid litera"),
    ("types", (*START, "--config.rates=5"), r"config.rates: rule 5 is not a pair \(pattern, rate"),
    ("types", (*START, "--max_memory=lots"), A_NUMBER),
    ("types", (*START, "--num_processes=a"), "invalid literal for int"),
    ("types", (*START, "--distributed=perhaps"), "Non-boolean argument to boolean flag"),
    ("types", (RUN, "--config={configs}/number.py", NEW), "get_config returns 3, expected a Conf"),
    ("types", (RUN, "--config={configs}/none.py", NEW), "flag --config=None"),
    ("types", ("tools.benchmark", "--patience=long"), A_NUMBER),
    ("names", (*START, "--config.num_round=3"), 'such setting: .* mean "num_rounds"'),
    ("names", (*START, "--config.nothing.deep=3"), "no such setting: 'nothing'"),
    ("names", (*START, "--config.epochs.deep=3"), "no such setting: .*epochs.deep"),
    ("names", (*START, "--config.runner=one_shot"), "config has no criteria, weights, powers, ret"),
    ("names", (*START, "--config.runner=learned"), "config has no initial_logits, num_draws"),
    ("names", (*START, "--config.variants=random,small"), "unknown criterion 'small'"),
    ("names", (*START, "--config.optimizer=sdg"), "unknown optimizer 'sdg'; did you mean 'sgd'"),
    ("names", (*START, "--config.loss=README:f"), "the loss README:f is in no module"),
    ("types", (*START, "--config.drop_steps=a"), "config.drop_steps has 'a', expected an integer"),
    ("names", (*START, "--config.variants=random:reinit,small"), "unknown criterion 'small'"),
    ("names", (RUN, ONE_SHOT, NEW, "--config.criteria=random,small"), "unknown criterion 'small'"),
    ("names", (RUN, ONE_SHOT, NEW, "--config.weights=init,x"), "unknown kind of weights 'x'"),
    ("names", (*START, "--config.variants.deep=3"), "--config: TypeError: tuple indices must be"),
    ("names", (*START, "--", "--config.epochs=3"), "unknown argument '--config.epochs=3'; flags"),
    ("names", (*START, "--wrokdir=x"), "Unknown command line flag 'wrokdir'. Did you mean: work"),
    ("names", (*START, "more"), "unknown argument 'more'; flags start with --"),
    ("names", (RUN, f"{CONFIG},small", NEW), "'lenet300,tiny,small' after the colon of"),
    ("names", (RUN, "--config={configs}/nothing.py", NEW), "the file has no function get_config"),
    ("names", (RUN, "--config={configs}/empty.py", NEW), "names no runner; make it by a funct"),
    ("names", (RUN, "--config={configs}/empty.py:conv2", NEW), "get_config.. takes 0 positional"),
    ("names", ("tools.report", "--tabel=x"), "Unknown command line flag 'tabel'"),
    ("names", ("tools.figure", "pie", TABLE, "--picture={new}.png"), "unknown figure 'pie'; known"),
    ("names", ("tools.figure", "mask_criteria", HEURISTIC, "--picture={new}.png"),
     "mask_criteria cannot show a table that lacks the column 'round'"),
    ("names", ("tools.figure", "mask_criteria", LINES, "--picture={new}.png"),
     "mask_criteria cannot show a table that lacks the column 'criterion'"),
    ("names", ("tools.figure", "mask_criteria", TABLE, "--picture={new}.xyz"), "supported formats"),
    ("names", ("tools.rerun", "f00"), "no table in results has a row 'f00'"),
    ("names", ("tools.rerun", "a", "b"), "name the id of one row"),
    ("names", (*LAUNCH[:-1], "--slices=2", "--cluster=cloud"), "should be one of <slurm|local>"),
    ("names", (*LAUNCH[:-1], "--slices=2", "--cluster=slurm"), "--cluster=slurm: Could not detect"),
    ("names", ("tools.benchmark", "--networks=lenet30"), "unknown network 'lenet30'; did you mean"),
    ("names", ("tools.benchmark", "--mappings=map"), "'map' needs a number of devices after its"),
    ("ranges", (*START, "--config.learning_rate=nan"), "learning_rate is nan, expected a finite"),
    ("ranges", (*START, "--max_memory=-1"), "-1.0 is not a non-negative number"),
    ("ranges", (*START, "--max_memory=nan"), "flag --max_memory=nan: expected a number"),
    ("ranges", (*START, "--checkpoint_minutes=-1"), "-1.0 is not a non-negative number"),
    ("ranges", (*START, "--checkpoint_minutes=nan"), "checkpoint_minutes=nan: expected a number"),
    ("ranges", (*START, "--num_processes=0"), "0 is not a positive integer"),
    ("ranges", (*START, "--num_processes=2"), "need --distributed"),
    ("ranges", (*START, "--distributed", "--coordinator=x:1", "--num_processes=2",
                "--process_index=2"), "--process_index is 2, expected less than --num_processes=2"),
    ("ranges", (*START, "--slice=3/2"), "--slice is '3/2', expected i/n with i from 0 to n - 1"),
    ("ranges", (*START, "--slice=0/2\n"), r"--slice is '0/2\\n', expected i/n with i from 0 to n"),
    ("ranges", (RUN, ONE_SHOT, NEW, "--config.powers=1,-2"), "config.powers has -2, expected an"),
    ("ranges", (*LAUNCH, "--slices=0"), "0 is not a positive integer"),
    ("ranges", (*LAUNCH, "--slices=99"), "--slice asks for 99 parts of 8 members, expected no mor"),
    ("ranges", (*LAUNCH, "--slices=2", "--slice=0/2"), "--slice is set by tools.launch; give --sl"),
    ("ranges", (*LAUNCH, "--slices=2", "--hours=nan"), "flag --hours=nan: expected a number"),
    ("ranges", ("tools.plane", "--picture={new}.png", "--keep=2"), "--keep=2: 2.0 is not a number"),
    ("ranges", ("tools.plane", "--picture={new}.png", "--keep=nan"), "--keep=nan: expected a numb"),
    ("ranges", ("tools.benchmark", "--members=0"), "--members has '0', expected numbers of 1 or"),
    ("ranges", ("tools.benchmark", "--turns=0"), "0 is not a positive integer"),
    ("ranges", ("tools.benchmark", "--patience=nan"), "flag --patience=nan: expected a number"),
    ("paths", (RUN, CONFIG), "flag --workdir=None"),
    *(("paths", (*words, f"{flag}={{link}}{below}"), f"{flag}={{link}}.*: {{link}} is a broken sym")
      for words, flag, below in TO_WRITE),
    *(("paths", (*words, f"{flag}={{file}}{below}"), f"{flag}={{file}}.*: {{file}} is a file, expe")
      for words, flag, below in TO_WRITE),
    *(("paths", (*words, f"{flag}=~/file{below}"), f"{flag}={{file}}.*: {{file}} is a file, expe")
      for words, flag, below in TO_WRITE),
    *(("paths", (*words, f"{flag}=~nobody_here{below}"), "~nobody_here.* is in no user's home")
      for words, flag, below in TO_WRITE),
    *(("paths", (*words, f"{flag}=a\udcff"), r"^error: '--.*=a\\udcff' is not UTF-8 text")
      for words, flag, _ in TO_WRITE),
    *(("paths", (*words, f"{flag}="), f"{flag} is empty, expected: ")
      for words, flag, _ in TO_WRITE),
    ("paths", (RUN, CONFIG, "--workdir=a\nb"), r"'a\\nb' is not a path"),
    ("paths", (RUN, CONFIG, "--workdir", "--config.epochs=3"), "'--config.epochs=3' is not a path"),
    *(("paths", (program, *words, "~/nothing", f"--{flag}={{new}}"), "{home}/nothing")
      for program, words, flag in (
          ("tools.collect", (), "output"), ("tools.figure", ("mask_criteria",), "picture"),
          ("tools.plane", (), "picture"), ("tools.report", (), "page"))),
    *(("paths", (program, *words, "", f"--{flag}={{new}}"), "the path is empty")
      for program, words, flag in (
          ("tools.collect", (), "output"), ("tools.figure", ("mask_criteria",), "picture"),
          ("tools.plane", (), "picture"), ("tools.report", (), "page"))),
    ("paths", ("tools.report", "results", "--readme={new}"), "there is no file {new}"),
    ("paths", (RUN, "--config=~/nothing.py:conv2", NEW), "{home}/nothing.py is not there, expect"),
    ("paths", (RUN, "--config={configs}/opens.py", NEW), "opens.py, line 1: FileNotFoundErr"),
    ("paths", (RUN, "--config={configs}/sets.py", NEW), "sets.py, line 3: TypeError: Could not"),
    ("paths", (RUN, "--config={configs}/long.py", NEW), "error: two lines"),
    ("paths", (RUN, "--config={configs}/exits.py", NEW), "exits.py, line 2: it ends the program"),
    ("paths", (RUN, "--config={configs}/bytes.py", NEW), "SyntaxError: source code .*null bytes"),
    ("paths", (RUN, "--config=README.md", NEW), "--config: README.md, line .*: SyntaxError"),
    ("paths", (*START, "--flagfile={new}"), "Unable to open flagfile: .*{new}"),
    *(("paths", (*START, "--distributed", f"--coordinator={place}"), f"'{place}', expected HOST:PO")
      for place in ("nowhere", "host:", ":1", "host:65536")),
    ("paths", (RUN, NEW), "flag --config=None"),
    ("paths", (RUN, "--config=", NEW), "flag --config=: the path is empty"),
    ("paths", (RUN, "--config={configs}/no.py", NEW), "{configs}/no.py is not there, expected a"),
    ("paths", (RUN, "--config={configs}", NEW), "{configs} is a folder, expected a file"),
    ("paths", (RUN, "--config={configs}/syntax.py", NEW), "{configs}/syntax.py, line 1: SyntaxErr"),
    ("paths", (RUN, "--config={configs}/raises.py", NEW), "raises.py, line 2: KeyError: 'boo'"),
    ("paths", (RUN, "--config={configs}/imports.py", NEW), "imports.py, line 1: ModuleNotFoundEr"),
    ("paths", (RUN, "--config={configs}/divides.py", NEW), "divides.py, line 1: ZeroDivisionErr"),
    ("paths", ("tools.collect", "{configs}", "--output={new}"), "{configs}/config.json"),
    ("paths", ("tools.collect", "{file}", "--output={new}"), "{file} is neither the folder of"),
    ("paths", ("tools.report", "{new}.csv"), "there is no folder {new}.csv"),
    ("paths", ("tools.report", "{file}"), "{file} is not a table of this version"),
    ("paths", ("tools.figure", "learning_curves", "{file}", "--picture={new}.png"), "{file}"),
    ("paths", ("tools.plane", "{new}", "--picture={new}.png"), "'{new}/config.json'"),
    ("paths", ("tools.plane", "a", "b", "--picture={new}.png"), "name one folder of a run, or"),
    ("paths", ("tools.rerun", "f00", "--results={new}"), "{new} has a row 'f00': there is no"),
    ("empty lists", ("tools.benchmark", "--networks="), "--networks is empty, expected: networks"),
    ("empty lists", ("tools.benchmark", "--members="), "--members is empty, expected: sizes"),
    ("empty lists", ("tools.benchmark", "--mappings="), "--mappings is empty, expected: how mem"),
    ("empty lists", ("tools.collect", "--output={new}"), "name at least one folder of a run"),
    ("empty lists", ("tools.report",), "name a folder of tables or one table, for"),
    ("empty lists", ("tools.figure", "mask_criteria", "--picture={new}.png"), "at least one table"),
    ("empty lists", ("tools.rerun",), "name the id of one row"),
    ("empty lists", ("tools.launch", CONFIG, NEW), "flag --slices=None"),
    ("empty lists", (*START, "--config.seeds="), r"config.seeds is \(\), expected a non-"),
    ("empty lists", (*START, "--config.variants=()"), r"config.variants is \(\), expected a"),
    *(("empty lists", (*START, f"{flag}="), f"{flag} is empty, expected: ")
      for flag in ("--slice", "--coordinator", "--config.experiment", "--config.figure")),
    ("empty lists", (*LAUNCH, "--slices=2", "--partition="), "--partition is empty, expected: SLU"),
    ("empty lists", ("tools.plane", "--picture={new}", "--layer="), "--layer is empty, expected"),
    ("duplicates", (*START, "--config.variants=('random','random:rewind')"),
     f"config.variants has random {TWICE}"),
    ("duplicates", ("tools.figure", "learning_curves", "a", "a", "--picture={new}.png"),
     "learning_curves shows one .curves.parquet, not 2"),
    *(("duplicates", (*START, *twice), f"{twice[0].split('=')[0]} is given more than once")
      for twice in (("--config.seeds=0", "--config.seeds=1"), ("--config.epochs=3",) * 2,
                    ("--slice=0/2", "--slice=1/2"), ("--distributed", "--nodistributed"),
                    (CONFIG,), (CONFIG, "--config.epochs=3"))),
    ("duplicates", (*LAUNCH, "--slices=2", "--slices=3"), "--slices is given more than once"),
    ("repeated seeds", (*START, "--config.seeds=(1,1)"), f"config.seeds has 1 {TWICE}"),
    ("repeated seeds", (*LAUNCH, "--slices=2", "--config.seeds=(1,1)"), f"seeds has 1 {TWICE}"),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    base = tmp_path_factory.mktemp("bad")
    named = {name: base / name for name in ("new", "home", "link", "configs")}
    named["home"].mkdir()
    named["file"] = named["home"] / "file"
    named["file"].write_text("hello\n")
    named["link"].symlink_to(base / "nowhere")
    named["configs"].mkdir()
    for name, text in FILES.items():
        (named["configs"] / f"{name}.py").write_text(text)
    return named


@pytest.fixture(scope="module")
def answers(places):
    commands = [[word.format(**places) for word in words] for _, words, _ in TYPED]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(places["home"]))
        return dict(zip(range(len(TYPED)), command_lines.answers(commands), strict=True))


@pytest.mark.parametrize("number", range(len(TYPED)), ids=lambda n: f"{n} {TYPED[n][0]}")
def test_a_wrong_command_line_ends_in_one_line(answers, places, number):
    status, output = answers[number]
    pattern = TYPED[number][2]
    for name, path in places.items():
        pattern = pattern.replace(f"{{{name}}}", str(path))
    assert re.search(pattern, output), output
    assert output.startswith("error: ") and len(output.splitlines()) == 1
    assert status == 1


@pytest.mark.parametrize(
    "words", [(*START, "--config.seeds=(1,1)"), ("tools.collect", "{file}", "--output={new}")]
)
def test_a_separate_process_ends_in_one_line_too(places, words):
    done = command_lines.python("-m", *(word.format(**places) for word in words))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_wrong_command_lines_leave_nothing_behind(answers, places):
    assert {path.name for path in places["new"].parent.iterdir()} == {"home", "link", "configs"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a,b", ("a", "b")),
        ("a", ("a",)),
        (" a , b:c,", ("a", "b:c")),
        ("('a','b')", ("a", "b")),
        ("['a']", ("a",)),
        ("'a,b'", ("a,b",)),
        ("0,1", (0, 1)),
        ("3", (3,)),
        ("0.5,-1", (0.5, -1)),
        ("(('output/kernel',0.1),)", (("output/kernel", 0.1),)),
    ],
)
def test_a_list_is_written_with_or_without_brackets(text, value):
    words, known = ["run", f"--config.listed={text}"], flags.FlagValues()
    config_flags.DEFINE_config_dict(
        "config", ConfigDict({"listed": ("x",)}), flag_values=known, sys_argv=words
    )
    known(words)
    assert known.config.listed == value


def test_a_path_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    done = command_lines.fork("tools.figure", "mask_criteria", TABLE, "--picture=~/f.png")
    assert done.stdout == f"{tmp_path}/f.png\n" and (tmp_path / "f.png").exists()
    assert path_of("~") == tmp_path and path_of(f"~{getpass.getuser()}").is_absolute()
    assert path_of("runs/x") == Path("runs/x")


def test_ctrl_c_ends_every_program_in_one_line():
    code = """
from experiments.command_line import run_program
def main(arguments): raise KeyboardInterrupt
run_program(main)
"""
    done = command_lines.fork("program", code=code)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "stopped by Ctrl-C\n")


def test_the_tables_are_as_large_as_promised():
    tables = [wrong.kind for wrong in (*library.WRONG, *WRONG)]
    tables += [row[0] for row in (*library.LEGAL, *OF_FILES, *TYPED)]
    counts = collections.Counter(tables)
    assert counts.keys() == set(KINDS)
    assert min(counts.values()) >= 8 and counts.total() >= 150
