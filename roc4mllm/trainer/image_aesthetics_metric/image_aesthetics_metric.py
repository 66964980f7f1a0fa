"""
The script that `evaluate.load` copies and runs, together with the file it imports from; no network, no other package.

`evaluate` reads line by line what to copy and what must be installed: one import per line, and no comment behind it,
which would be taken for the name to install.
"""
# mypy: disable-error-code="import-untyped"

import datasets
import evaluate

from .score_agreement import score_agreement

DESCRIPTION = """
Agreement of predicted and rated image aesthetics: SRCC, PLCC raw and after a four-parameter logistic curve (VQEG),
KRCC (tau-b), MAE and RMSE in units of the scores, and the share of pictures on the same side of a cut.
"""
INPUTS = """
Args:
    predictions (list of float): predicted scores; leave failed pictures out, with their labels, and tell how many.
    references (list of float): rated scores in the same units; NaN leaves a picture out.
    cut (float, optional): adds `accuracy`; 5 is usual for AVA's ratings from 1 to 10.
Returns:
    n, srcc, plcc, plcc_logistic, krcc, mae, rmse, and accuracy where a cut is given; NaN for what has no value.
Examples:
    >>> metric.compute(predictions=[2.0, 3.0, 5.0, 4.0], references=[1.0, 3.0, 4.0, 5.0])["srcc"]
    0.8
"""
CITATION = """
@techreport{vqeg2000,
  title = {Final report from the Video Quality Experts Group on the validation of objective models of video quality
           assessment},
  institution = {Video Quality Experts Group},
  year = {2000}
}
"""


class ImageAestheticsMetric(evaluate.Metric):
    """
    Agreement of predicted and rated scores, as a metric of the `evaluate` library.

    ```python
    >>> import evaluate
    >>> from roc4mllm.trainer.metrics_aesthetics import METRIC_PATH

    >>> metric = evaluate.load(METRIC_PATH)
    >>> metric.compute(predictions=[2.0, 3.0, 5.0, 4.0], references=[1.0, 3.0, 4.0, 5.0])["srcc"]
    0.8
    ```
    """

    def _info(self):
        score = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": score, "references": score}),
        )

    def _compute(self, predictions, references, cut=None):
        return score_agreement(predictions, references, cut)
