"""A loop of one's own: ask for a job, train as you like, tell the result. Several such scripts may share the file."""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

import tunesmith as ts

SPACE = ts.Space(
    {
        "C": ts.Float(1e-3, 1e3, log=True),
        "kernel": ts.Categorical(
            {
                "linear": None,
                "rbf": ts.Space({"gamma": ts.Float(1e-4, 1e1, log=True)}),
                "poly": ts.Space({"gamma": ts.Float(1e-4, 1e1, log=True), "degree": ts.Integer(2, 4)}),
            }
        ),
    }
)

if __name__ == "__main__":
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    study = ts.Study(SPACE, ts.Goal("accuracy", maximise=True), ts.samplers.QMC(), store="svc.db", trials=20)
    while job := study.ask():
        try:
            study.tell(job, {"accuracy": cross_val_score(SVC(**job.config), x, y, cv=3).mean()})
        except ValueError as error:
            study.fail(job, str(error))
    print(study.best.config, study.best.metrics)
