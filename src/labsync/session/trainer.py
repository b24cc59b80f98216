"""The callback for transformers' Trainer; importing this module needs transformers."""

from __future__ import annotations

import transformers

from labsync import session


class TrainerCallback(transformers.TrainerCallback):  # type: ignore[misc]  # the package has no types
    """Lets a Trainer save and stop when the session is about to end.

    At the end of the step after which a checkpoint could no longer be brought to safety it asks for
    a checkpoint and for the end of the training; `trainer.train(resume_from_checkpoint=True)` goes on
    from there in the next session.
    """

    def on_step_end(
        self,
        args: transformers.TrainingArguments,  # noqa: ARG002  the signature is transformers'
        state: transformers.TrainerState,  # noqa: ARG002
        control: transformers.TrainerControl,
        **kwargs: object,  # noqa: ARG002
    ) -> transformers.TrainerControl:
        """Ask for a checkpoint and the end where it is time."""
        if session.should_stop():
            control.should_save = True
            control.should_training_stop = True
        return control
