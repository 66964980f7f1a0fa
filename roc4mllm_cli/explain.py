"""`roc4mllm explain`: what a model looked at."""

from .arguments import Commands, add_running_options


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "explain",
        help="draw what a score rests on",
        description="Draw over a photograph what the model looked at, and beside it the score and its levels. "
        "ROC4MLLM: attention from the score position to the image. EAT: sampling points and where they were moved "
        "from. TANet: how alike the colours are. Other models: how strongly the score reacts to each part.",
        allow_abbrev=False,
    )
    parser.add_argument("image", metavar="IMAGE", help="a picture or a URL")
    parser.add_argument("-m", "--model", help="model or adapter: a Hub name or a folder (default: the bundled one)")
    parser.add_argument("-o", "--output", required=True, metavar="PNG", help="the .png file to write")
    parser.add_argument("--attribute", metavar="NAME", help="which score (default: the model's main attribute)")
    add_running_options(parser)
