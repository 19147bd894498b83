"""The prompt of IPython."""

import asyncio
import re
import sys
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from IPython.terminal.prompts import Prompts, Token
from prompt_toolkit.patch_stdout import StdoutProxy
from traitlets.config import Config

from actors.console.commands import Commands
from supervisor import Result

__all__ = ["prompt"]

_RUN = "__querycrew_run__"


def prompt(commands: Commands, namespace: dict[str, Any], banner: str, name: str) -> None:
    """Read and run lines until `quit` or the end of the input."""
    config = Config()
    own = config.TerminalInteractiveShell
    own.confirm_exit = False
    own.separate_in = ""
    own.term_title = False
    own.prompts_class = _prompts(commands, name)
    shell = TerminalInteractiveShell.instance(config=config, user_ns=namespace)
    shell.user_ns_hidden.update(dict.fromkeys(namespace))
    shell.push({_RUN: commands.run}, interactive=False)
    shell.input_transformers_cleanup.append(_transformer(commands))
    shell.Completer.custom_matchers.append(_matcher(commands))
    text = shell.display_formatter.formatters["text/plain"]
    text.for_type(Result, lambda result, printer, _: _show(commands, result, printer))

    def show_error(_: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None) -> None:
        del kind, trace, tb_offset
        if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
            print("cancelled")
        else:
            commands.show_error(error)

    shell.set_custom_exc((*namespace["db"].errors, KeyboardInterrupt, asyncio.CancelledError), show_error)

    def announce() -> None:
        # While the prompt waits for a line, this stream writes above the prompt.
        if isinstance(sys.stdout, StdoutProxy):
            for line in commands.background.news():
                sys.stdout.write(line + "\n")

    def after(result: Any) -> None:
        commands.announce()
        if result is not None and result.error_before_exec is None:
            commands.note_run(result.info.raw_cell)

    prompt_for_code = shell.prompt_for_code

    def prompt_with_suggestion() -> str:
        shell.rl_next_input = shell.rl_next_input or commands.suggestion()
        text: str = prompt_for_code()
        return text

    shell.prompt_for_code = prompt_with_suggestion
    commands.background.on_end = announce
    shell.events.register("post_run_cell", after)
    try:
        with asyncio.Runner() as runner:
            # At Ctrl-C IPython's own runner drops the task, and its query runs on. This one
            # cancels the task.
            shell.loop_runner = runner.run
            print(banner)
            commands.begin()
            shell.mainloop()
    finally:
        shell.loop_runner = None
        TerminalInteractiveShell.clear_instance()


def _prompts(commands: Commands, name: str) -> type[Prompts]:
    class NamedPrompts(Prompts):  # type: ignore[misc]  # IPython has no types
        def in_prompt_tokens(self) -> list[tuple[Any, str]]:
            star = "*" if commands.runner.in_transaction else ""
            return [(Token.Prompt, f"{name}{star}> ")]

        def continuation_prompt_tokens(self, width: int | None = None, **_: Any) -> list[tuple[Any, str]]:
            return [(Token.Prompt, "> ".rjust(width or len(name) + 2, "."))]

        def out_prompt_tokens(self) -> list[tuple[Any, str]]:
            return []

    return NamedPrompts


def _transformer(commands: Commands) -> Any:
    """Return a function that makes a call of Python out of SQL and commands."""

    def transform(lines: list[str]) -> list[str]:
        text = "".join(lines)
        if not commands.take(text):
            return lines
        if not commands.is_complete(text.rstrip("\n")) and not text.endswith("\n\n"):
            return [f"{_RUN}(\n"]  # an open parenthesis: IPython asks for another line
        return [f"{_RUN}({text!r})\n"]

    return transform


def _matcher(commands: Commands) -> Any:
    @context_matcher()  # type: ignore[untyped-decorator]  # as above
    def querycrew_names(context: CompletionContext) -> SimpleMatcherResult:
        before = context.full_text[: _index(context)]
        if re.fullmatch(r"\w*", before):
            words = [SimpleCompletion(word, type="command") for word in commands.first_words(before)]
            return SimpleMatcherResult(completions=words, suppress=False)
        if not commands.take(before + "x" if before.endswith(" ") else before):
            return SimpleMatcherResult(completions=[], suppress=False)
        word, found = commands.names.candidates(before)
        completions = [SimpleCompletion(name, type="sql") for name in found]
        return SimpleMatcherResult(completions=completions, matched_fragment=word, suppress=True)

    return querycrew_names


def _index(context: CompletionContext) -> int:
    """Return the index of the cursor in the whole text."""
    lines = context.full_text.split("\n")
    column: int = context.cursor_position
    return sum(len(line) + 1 for line in lines[: context.cursor_line]) + column


def _show(commands: Commands, result: Result, printer: Any) -> None:
    if len(printer.stack) > 1:
        printer.text(repr(result))
        return
    printer.text(commands.table_of(result))
