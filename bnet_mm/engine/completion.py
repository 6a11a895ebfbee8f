"""Scripts with which shells complete the commands of `bnet`, written from the programs' parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from shlex import quote

SHELLS = ('bash', 'zsh', 'fish')

# Prints the words for: commands so far, the word before, the word that is begun.
_WORDS = """\
_bnet_words() {{
  local at=bnet
  [ -n "$1" ] && at="bnet $1"
  case "$at $2" in
    {nested}) at="$at $2" ;;
  esac
  case "$at $3" in
{values}
    *)
      case "$4" in
        -*)
          case "$at" in
{options}
          esac ;;
        *)
          case "$at" in
{names}
          esac ;;
      esac ;;
  esac
}}
"""
_BASH = """\
_bnet() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} first= second=
  [ "$COMP_CWORD" -gt 1 ] && first=${COMP_WORDS[1]}
  [ "$COMP_CWORD" -gt 2 ] && second=${COMP_WORDS[2]}
  COMPREPLY=($(compgen -W "$(_bnet_words "$first" "$second" "$before" "$word")" -- "$word"))
}
complete -o bashdefault -o default -F _bnet bnet
"""
_ZSH = """\
_bnet() {
  local first= second=
  (( CURRENT > 2 )) && first=$words[2]
  (( CURRENT > 3 )) && second=$words[3]
  local -a found=(${=$(_bnet_words "$first" "$second" "$words[CURRENT-1]" "$words[CURRENT]")})
  if (( $#found )); then compadd -- $found; else _files; fi
}
if [ "$funcstack[1]" = _bnet ]; then _bnet "$@"; else compdef _bnet bnet; fi
"""
_FISH = """\
function __bnet_at
    string match -q -- "$argv *" (string join ' ' -- (commandline -opc)[2..])' '
end
function __bnet_words
    test (count (commandline -opc)) -eq $argv
end
"""


@dataclass(frozen=True)
class Place:
    """What may follow on the command line after a command.

    Attributes:
        options: long options -> their help.
        values: what an option takes, where that is one of a few words.
        flags: options that take no value.
        names: the commands below it, or the words that its first argument may be -> their help.
    """

    options: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)


def script(
    shell: str, parsers: Mapping[str, argparse.ArgumentParser], summaries: Mapping[str, str]
) -> str:
    """Returns the script for a shell, which completes commands, options and file names.

    Args:
        shell: one of `SHELLS`.
        parsers: the parser of each command.
        summaries: what to say of each command.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument('--amp', action='store_true', help='mixed precision')
        >>> print(script('fish', {'train': parser}, {'train': 'train'}).splitlines()[-1])
        complete -c bnet -n '__bnet_at train' -l amp -d 'mixed precision'
    """
    places = {'': Place(names=dict(summaries))}
    for name, parser in parsers.items():
        places.update(_places(name, parser))
    if shell == 'fish':
        return _FISH + '\n'.join(_fish_lines(places)) + '\n'
    words = _WORDS.format(
        nested=' | '.join(quote(f'bnet {at}') for at in places if ' ' in at) or quote(''),
        values='\n'.join(
            _case(4, f'bnet {at} {option}', values)
            for at, place in places.items()
            for option, values in place.values.items()
        ),
        options='\n'.join(
            _case(12, f'bnet {at}'.strip(), place.options) for at, place in places.items()
        ),
        names='\n'.join(
            _case(12, f'bnet {at}'.strip(), place.names)
            for at, place in places.items()
            if place.names
        ),
    )
    return words + _BASH if shell == 'bash' else '#compdef bnet\n' + words + _ZSH


def _places(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, Place]]:
    """Yields what follows a command, and each of the commands below it."""
    place = Place()
    for action in parser._actions:
        long = [option for option in action.option_strings if option.startswith('--')]
        for option in long:
            place.options[option] = action.help or ''
            if action.nargs == 0:
                place.flags.add(option)
            elif action.choices:
                place.values[option] = list(map(str, action.choices))
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or '' for choice in action._choices_actions}
            place.names.update(helps)
            for below, its_parser in action.choices.items():
                yield from _places(f'{name} {below}', its_parser)
        elif not action.option_strings and action.choices and not place.names:
            place.names.update(dict.fromkeys(map(str, action.choices), ''))
    yield name, place


def _case(indent: int, at: str, words: Mapping[str, str] | list[str]) -> str:
    return f'{" " * indent}{quote(at)}) echo {quote(" ".join(words))} ;;'


def _fish_lines(places: Mapping[str, Place]) -> Iterator[str]:
    for at, place in places.items():
        depth = len(at.split()) + 1
        here = f'__bnet_at {at}; and __bnet_words {depth}' if at else f'__bnet_words {depth}'
        for name, said in place.names.items():
            yield f'complete -c bnet -n {_fish(here)} -f -a {name}{_said(said)}'
        for option, said in place.options.items():
            line = f'complete -c bnet -n {_fish(f"__bnet_at {at}")} -l {option[2:]}'
            if option in place.values:
                line += f' -x -a {_fish(" ".join(place.values[option]))}'
            elif option not in place.flags:
                line += ' -r'
            yield line + _said(said)


def _said(text: str) -> str:
    return f' -d {_fish(text)}' if text else ''


def _fish(text: str) -> str:
    return "'" + text.replace('\\', '\\\\').replace("'", "\\'") + "'"
