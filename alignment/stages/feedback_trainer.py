"""TRL's KTOTrainer for feedback that is already tokenized."""

from __future__ import annotations

from typing import Any

from trl import KTOTrainer

from alignment.tokenization.feedback_tokens import mismatched_completions


class FeedbackTrainer(KTOTrainer):
    """KTOTrainer for rows of `alignment.tokenization.feedback_tokens.FeedbackSample`."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """Add the completions from which the reference point is estimated, in the order in which batches are made."""
        if not self.calculate_KL:
            return dataset
        shifted = mismatched_completions(dataset["completion_ids"], args.per_device_train_batch_size)
        return dataset.add_column("KL_completion_ids", shifted)
