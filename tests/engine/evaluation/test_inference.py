"""The folded or compiled network that a test runs gives the same logits as the network."""

import pytest
import torch

from nlnet.engine.config import Config, EvalConfig, override
from nlnet.engine.network import eval_precision, for_testing
from nlnet.errors import ConfigError
from nlnet.zoo import create_model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("i3d_mini_nl1", num_classes=5, variant="8x8").train()


def test_a_folded_network_gives_the_same_logits(model):
    x = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        folded = for_testing(model, EvalConfig())
        assert model.training, "folding leaves the model as it was"
        whole = for_testing(model, EvalConfig(fold=False))
        torch.testing.assert_close(folded(x), whole(x), rtol=1e-5, atol=1e-6)
        window = (4, 1, 1)
        torch.testing.assert_close(
            folded.dense_logits(x, window), whole.dense_logits(x, window), rtol=1e-5, atol=1e-6
        )
    assert whole is model
    assert not model.training


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # torch's own use
def test_a_compiled_network_gives_the_same_logits(model):
    x = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        expected = for_testing(model, EvalConfig())(x)
        got = for_testing(model, EvalConfig(compile=True))(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_the_precision_is_that_of_the_test_or_of_training():
    config = override(Config(), ["training.precision=bf16"])
    assert eval_precision(config, EvalConfig()) == "bf16"
    assert eval_precision(config, EvalConfig(precision="float32")) == "float32"


def test_only_folded_networks_are_compiled():
    with pytest.raises(
        ConfigError, match="test.compile: only the folded network is compiled; set test.fold=true"
    ):
        override(Config(), ["test.compile=true", "test.fold=false"])
