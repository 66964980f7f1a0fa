"""`roc4mllm convert`: an original checkpoint to a native folder."""

from .arguments import Commands


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "convert",
        help="convert an original checkpoint",
        description="Write a native folder with the weights of a checkpoint in its authors' format: roc4mllm for the "
        "published ROC4MLLM, level-words for OneAlign, Q-Align and DeQA-Score, which name a level in a word, each "
        "from a folder, file by file; tanet, eat and elta from a file of weights. DST appears when it is complete.",
        epilog="`roc4mllm score -m Ricardo-M/ROC4MLLM` converts by itself, into the cache. A TANet trained on AVA "
        "lacks statistics of pictures; --calibrate measures them, and the card tells what they change.",
        allow_abbrev=False,
    )
    families = ("roc4mllm", "level-words", "tanet", "eat", "elta")
    parser.add_argument("family", choices=families, metavar="FAMILY", help=", ".join(families))
    parser.add_argument("source", metavar="SRC", help="folder with config.json, weights and tokenizer.model; or .pth")
    parser.add_argument("destination", metavar="DST", help="new folder")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of a folder's weights (default: as they are)"
    )
    parser.add_argument(
        "--attribute", choices=("aesthetics", "quality"), help="what level-words asks for (default: aesthetics)"
    )
    parser.add_argument("--variant", choices=("AVA", "TAD66K"), help="which head, if an elta file holds two")
    parser.add_argument("--calibrate", metavar="DIR", help="pictures for tanet, a few hundred like those to be scored")
