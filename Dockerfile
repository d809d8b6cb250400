# Code and packages only: clips, frames, adapters and model weights are mounted (docker-compose.yml), never copied in.
# Not the 2.3.1 image of the first plan: transformers 5 needs torch >= 2.6, and pip would then bring a CUDA 13 build
# that many A1000 drivers reject. CUDA 12 needs driver 525 or newer.
FROM pytorch/pytorch:2.11.0-cuda12.8-cudnn9-runtime

# The image's Python is the system's (PEP 668), and nothing but this project uses it: pip may install into it.
# An empty VENV makes `make` take that Python instead of a .venv of its own.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    VENV=""

WORKDIR /workspace

# gcc and Python's headers are what Triton builds its launchers with: this project's GPU kernels, and compile_layers.
# No versions: the base image's tag fixes the release, whose archive keeps only the newest security fix of a package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ffmpeg gcc git libc6-dev make python-is-python3 python3-dev \
    && rm -rf /var/lib/apt/lists/*

# What pip reads comes first, so that a change to anything else doesn't install the packages anew.
COPY requirements.txt requirements-app.txt requirements-serve.txt constraints.txt pyproject.toml ./
COPY data_prep data_prep
COPY recipes recipes
RUN python3 -m pip install --no-cache-dir -r requirements.txt -r requirements-app.txt -r requirements-serve.txt \
    -c constraints.txt

# The build fails here if a requirement replaced the image's torch.
RUN ["python3", "-c", "import torch; found = (torch.__version__.split('+')[0], (torch.version.cuda or 'none').split('.')[0]); assert found == ('2.11.0', '12'), f'torch and CUDA are {found}, not 2.11.0 and 12'"]

COPY . .

# Whoever it runs as, by compose's `user`, need not be known to the system: they have a home to write to, and a name,
# which torch's compiler asks for. No compiled Python is left in the code that is mounted.
RUN mkdir -m 1777 .home
ENV HOME=/workspace/.home \
    USER=user \
    PYTHONDONTWRITEBYTECODE=1

CMD ["/bin/bash"]
