from sklearn.utils.estimator_checks import parametrize_with_checks
from comodulation.sklearn import MultiTaskClassifier
import pytest
@pytest.mark.filterwarnings("ignore:.*single class:UserWarning")
@parametrize_with_checks([MultiTaskClassifier("linear"), MultiTaskClassifier(), MultiTaskClassifier("committee")])
def test_checks(estimator, check):
    check(estimator)
