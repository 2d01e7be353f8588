"""Messages of the library in the words of a page, which has no options of a command line."""

from __future__ import annotations

from lorax.errors import one_line

WORDS = (
    ("--force writes it all the same, as an experiment", "tick 'Go on where refused' to write it all the same, as an experiment"),
    ("or use --force", "or tick 'Go on where refused'"),
    ("overwrite it with --force", "tick 'Overwrite existing files'"),
    ("choose another name, or tick", "tick"),
    ("choose another name with -o", "choose another folder"),
    ("'--source auto' needs to know where the checkpoints are: give --checkpoints DIR", "there are no checkpoints to look among"),
    (", given with --checkpoints,", ""),
    ("give it with --source BASE", "choose it as the source"),
    ("give it with --source", "choose it as the source"),
    ("loosen --only, --skip and --components", "let in more layers by 'Only these layers' and 'Not these layers'"),
    ("loosen --only and --skip", "let in more of them by 'Only these layers' and 'Not these layers'"),
    ("(--only, --skip, --components)", "(only, skip, components)"),
    ("give the source base with --source", "choose the source"),
    ("; use --device cpu", ""),
    ("left out by --only", "left out by 'Only these layers'"),
    ("left out by --skip", "left out by 'Not these layers'"),
    ("same VAE, or --force", "same VAE, or tick 'Go on where refused'"),
    ("try more --steps, more --samples, or --prompts that fit the adapter", "try more training steps"),
    (": lower --learning-rate (it was", ": on the command line, choose a lower learning rate (it was"),
    ("use --precision bf16 or no", "on the command line, choose another precision"),
    (
        "give a diffusers folder of the same architecture with --config, or be online once",
        "be online once, or give a diffusers folder of the same architecture on the command line",
    ),
    (
        "give the diffusers folder of the same architecture with --config",
        "give the diffusers folder of the same architecture on the command line",
    ),
    ("--resume goes on from there", "'Distill' goes on from there as long as nothing else is changed"),
    ("start without --resume", "start anew"),
    ("--source", "the source"),
    ("--force", "'Go on where refused'"),
)


def in_words_of_a_page(message: str) -> str:
    """One line without the command line's options."""
    for option, words in WORDS:
        message = message.replace(option, words)
    return one_line(message)
