"""The sink alone against a model, a few runs of it; `make chaos` does many more."""

from hypothesis import settings

from tests.chaos.sink_machine import SinkMachine

SinkMachine.TestCase.settings = settings(max_examples=5, stateful_step_count=20, deadline=None)
test_the_sink_holds_what_the_model_says = SinkMachine.TestCase
