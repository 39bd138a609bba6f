"""The engine's training against a loop that was written by hand, the one that the benchmark compares it with."""

from tests.bench.train_peers import PlainCyclegan
from tests.bench.train_runs import Size, start_training, take_steps, tensor_batches


def test_the_engines_steps_are_those_of_a_plain_loop():
    size = Size(size_px=32, width=4, blocks=1, batch=2)
    trained = {}

    def remember(networks):
        trained.update(networks)
        return networks

    training, plain = start_training(size, remember), PlainCyclegan(size)
    for name, network in plain.networks.items():
        network.load_state_dict(trained[name].state_dict())
    take_steps(training, tensor_batches(size), 2)
    for batch, _ in zip(tensor_batches(size), range(2), strict=False):
        plain.step(batch.tensors["content"], batch.tensors["style"])
    for name, network in plain.networks.items():
        for key, weight in network.named_parameters():
            # Norms take off what a bias adds: its gradient is rounding, and Adam makes steps even of that.
            if not key.endswith("bias"):
                far = (weight - trained[name].get_parameter(key)).abs() > 2e-5  # a step is 2e-4
                assert far.float().mean() < 0.01, (name, key)
