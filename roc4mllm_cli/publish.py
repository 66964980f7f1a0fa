"""`roc4mllm publish`: a folder to the Hub."""

from .arguments import Commands


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "publish",
        help="upload a model, an adapter or a data set to the Hub",
        description="Upload a folder as one commit: a model or adapter with its code, safetensors and a card, or a "
        "data set with the card it has. Before that a model is loaded in a fresh process without roc4mllm and scores "
        "a picture. Pickles, scripts and paths of this machine are refused by name.",
        epilog="HF_TOKEN (or hf auth login) says who you are, HF_ENDPOINT which Hub; one that has no Xet storage "
        "needs HF_HUB_DISABLE_XET=1. Where a connection broke, publish again: what arrived is not sent twice (tried "
        "by git-lfs, not by Xet). Prints the address of the commit.",
        allow_abbrev=False,
    )
    parser.add_argument("kind", choices=("model", "dataset"), metavar="KIND", help="model (or adapter), dataset")
    parser.add_argument("folder", metavar="DIR", help="what save_pretrained, train, convert or data wrote")
    parser.add_argument("repo", metavar="REPO", help="user/name on the Hub, made if need be")
    seen = parser.add_mutually_exclusive_group()
    private = "for you alone (default for data whose terms are not known to let others have them)"
    seen.add_argument("--private", action="store_true", default=None, help=private)
    seen.add_argument("--public", dest="private", action="store_false", default=None, help="for everybody")
    parser.add_argument("--revision", metavar="BRANCH", help="branch, made if need be (default: main)")
    parser.add_argument("--commit-message", metavar="TEXT", help="of the commit")
    parser.add_argument("--evaluation", metavar="FILE", help="metrics.json of `evaluate -o`, for the card of a model")
    parser.add_argument("--license", metavar="ID", help="of the weights, for the card, as in apache-2.0")
    parser.add_argument("--new-card", action="store_true", help="write a card where the model has one")
    parser.add_argument("--skip-check", action="store_true", help="upload without trying it first")
    parser.add_argument("--yes", action="store_true", help="confirm that these data may be uploaded")
    parser.add_argument("--dry-run", action="store_true", help="show what would happen; no network is used")
