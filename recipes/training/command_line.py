"""What a YAML and the flags after it say, read once, for training and doctor.py alike.

Imports neither torch nor TRL before the libraries' dataclasses are asked for, so that a run's inputs are checked before
that.
"""

import argparse
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from data_prep.errors import InputError
from data_prep.files import from_root
from recipes.layers.sizes import LLM_LINEARS
from recipes.machine.plan import PLANNED
from recipes.training.library_settings import ALWAYS, NO_EFFECT, REFUSED, UNSAID
from recipes.training.settings import EFFECTIVE, KNOWN, RecipeArguments, typed

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig, TrlParser

DEFAULT_CONFIG = "recipes/configs/qwen2vl_7b.yaml"
REQUIRED = ("model_name_or_path", "output_dir", "dataset", "max_pixels")


@dataclass(frozen=True)
class Settings:
    """What a YAML and the flags after it say: `given`, and `values`, which holds every setting that has an effect.

    Values have the kinds of the libraries' own fields; `lora_target_modules` is always a list.
    """

    config: Path
    given: Mapping[str, Any]
    values: Mapping[str, Any]

    @property
    def pinned(self) -> dict[str, Any]:
        """What YAML and flags say of the lines that can be planned for a machine: all, unless they leave it some."""
        planned = self.values["frames_an_update"] is not None
        return {name: self.values[name] for name in PLANNED if name in self.given or not planned}

    def with_lines(self, lines: Mapping[str, Any]) -> "Settings":
        """Return these settings with `lines` in the place of their own."""
        given = {**self.given, **lines}
        return Settings(self.config, given, _with_defaults(given))

    def for_processes(self, ranks: int) -> "Settings":
        """Return these settings for so many processes, each of which takes an update's frames where they say so."""
        if not self.values["frames_times_processes"] or ranks == 1:
            return self
        name = "gradient_accumulation_steps" if self.values["frames_an_update"] is None else "frames_an_update"
        return self.with_lines({name: self.values[name] * ranks})

    def as_dataclasses(self) -> "tuple[RecipeArguments, SFTConfig, ModelConfig]":
        """Have TRL's parser make this project's and the libraries' own dataclasses of them.

        Raises InputError for values that the libraries refuse.
        """
        parser = _trl_parser()
        parser.error = _refuse
        parser.set_defaults_with_config(**{**self.given, **ALWAYS})
        try:
            recipe, training, model = parser.parse_args_into_dataclasses([], look_for_args_file=False)
        except (ValueError, TypeError) as error:
            raise InputError(f"settings: {error}") from None
        model.lora_target_modules = self.values["lora_target_modules"]
        return recipe, training, model


def read_settings(argv: list[str]) -> Settings:
    """Read the YAML of `--config`, by default the 7B's, and the flags, of which the last of a name counts.

    Raises InputError for a missing or malformed YAML, for names that are no settings, for values of another kind, for
    settings that would have no effect or a wrong one, and where one is missing that has no default.
    """
    flags = read_flags(argv)
    config = from_root(flags.pop("config", DEFAULT_CONFIG))
    lines = read_yaml(config)
    for name in lines:
        if name not in KNOWN:
            raise InputError(f"--config {config}: {name!r} is no setting{_suggestion(name)}")
    given = {name: typed(name, value) for name, value in {**lines, **flags}.items()}
    for name, value in given.items():
        if name in REFUSED and value != REFUSED[name][0].default:
            raise InputError(f"{name} {REFUSED[name][1]}")
        if name in NO_EFFECT and value != NO_EFFECT[name].default:
            raise InputError(f"{name} has no effect in this recipe; remove it")
    for required in REQUIRED:
        if not given.get(required):
            raise InputError(f"{required} is not set; set it in the YAML or give --{required}")
    return Settings(config, given, _with_defaults(given))


def _with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: known.default for name, known in EFFECTIVE.items()} | {
        name: value for name, value in given.items() if name in EFFECTIVE
    }
    values |= {name: default for name, default in UNSAID.items() if values[name] is None}
    values["lora_target_modules"] = values["lora_target_modules"] or list(LLM_LINEARS)
    own = RecipeArguments(**{own.name: values[own.name] for own in fields(RecipeArguments)})  # which checks itself
    return values | vars(own)


def read_flags(argv: list[str]) -> dict[str, Any]:
    """Return the flags by name, as they are written: a word, several in a list, `true` where none follows.

    `--name value`, `--name=value` and `--na-me` are one; `--no_name` is `--name false`. Nothing may be abbreviated.
    Raises InputError for a word that belongs to no setting.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.error = _refuse  # type: ignore[method-assign]  # argparse would print all of its usage
    for name in ("config", *KNOWN):
        parser.add_argument(*_spellings(name), dest=name, nargs="*")
        if name in KNOWN and KNOWN[name].kind is bool:
            parser.add_argument(*_spellings(f"no_{name}"), dest=name, action="store_const", const=["false"])
    found, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        raise InputError(f"{unknown[0]} is no setting{_suggestion(name)}; --help lists them")
    return {name: _words(name, words) for name, words in vars(found).items()}


def _spellings(name: str) -> list[str]:
    return sorted({f"--{name}", f"--{name.replace('_', '-')}"})


def _words(name: str, words: list[str]) -> Any:
    if name == "config":
        if len(words) != 1:
            given = f"one, not {' '.join(words)}" if words else "for example recipes/configs/demo_cpu.yaml"
            raise InputError(f"--config needs the path of a YAML file, {given}")
        return words[0]
    kind = KNOWN[name].kind
    if kind is bool and not words:
        return "true"
    if kind is list and words:
        return words
    if len(words) != 1:
        raise InputError(f"--{name} takes one value{', not ' + ' '.join(words) if words else ''}")
    return words[0]


def _refuse(message: str) -> NoReturn:
    raise InputError(f"settings: {message}")


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), KNOWN, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML's lines. Raises InputError where it is missing or malformed."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"--config {path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not YAML ({error})") from None
    if not isinstance(settings, dict):
        raise InputError(f"--config {path}: must hold one 'name: value' a line")
    return settings


def show_help(description: str | None) -> int:
    """Print all settings, this recipe's own first, with what they are for; return the exit status."""
    print(_trl_parser(prog="sft_qwen2vl.py", description=description).format_help())
    return 0


def _trl_parser(**described: Any) -> "TrlParser":
    from trl import ModelConfig, SFTConfig, TrlParser

    return TrlParser((RecipeArguments, SFTConfig, ModelConfig), **described)
