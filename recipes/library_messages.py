"""Messages of our libraries that tell a user nothing, named one by one so that no other is lost."""

import logging
import os
import warnings


def silence_known_messages() -> None:
    """Keep back what can't be acted on, and TRL from sending usage figures. To be called before TRL is imported."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Advises a CPU kernel that would be fetched from the Hub and run; only what is pinned runs here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # PEFT 0.21.2 asks transformers 5.23 under the old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
